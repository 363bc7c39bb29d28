//! Drawing helpers for all parts of the picture.

use plotters::{
    coord::{Shift, ranged1d::AsRangedCoord},
    prelude::*,
    style::text_anchor::{HPos, Pos, VPos},
};

use super::Drawn;

/// A part of the picture, in pixels from its upper left corner.
pub(super) type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// A part of the picture, in the coordinates of a plot.
pub(super) type Plot<'a, X, Y> = DrawingArea<SVGBackend<'a>, Cartesian2d<X, Y>>;

pub(super) const INK: RGBColor = RGBColor(31, 35, 40);
pub(super) const MUTED: RGBColor = RGBColor(101, 109, 118);
pub(super) const FAINT: RGBColor = RGBColor(225, 228, 232);
/// The colour of unremarkable pods.
pub(super) const PLAIN: RGBColor = RGBColor(176, 184, 193);
/// The colours of marked pods, in their order: vermilion, blue.
pub(super) const MARKS: [RGBColor; 2] = [RGBColor(213, 94, 0), RGBColor(0, 114, 178)];

const FAMILY: &str = "Helvetica, Arial, sans-serif";

/// plotters takes a font's size as its height; the size in the SVG is smaller by this factor.
const HEIGHT: f64 = 1.24;

/// `area` with the coordinates `x` (to the right) and `y` (upwards).
pub(super) fn plot<'a, X: AsRangedCoord, Y: AsRangedCoord>(
    area: &Area<'a>,
    x: X,
    y: Y,
) -> Plot<'a, X::CoordDescType, Y::CoordDescType> {
    let (across, down) = area.get_pixel_range();
    let up = down.end..down.start;
    area.apply_coord_spec(Cartesian2d::new(x, y, (across, up)))
}

#[derive(Clone, Copy)]
pub(super) enum Weight {
    Normal,
    Bold,
}

/// Draws text that begins at `at`, in pixels, vertically centred there.
pub(super) fn text(
    area: &Area<'_>,
    text: &str,
    at: (i32, i32),
    size: u32,
    weight: Weight,
    color: &RGBColor,
) -> Drawn {
    let style = style(HPos::Left, size, weight, color);
    area.draw(&Text::new(text, at, style))?;
    Ok(())
}

/// The style of text to the left or right of a point, or centred on it.
pub(super) fn style(to: HPos, size: u32, weight: Weight, color: &RGBColor) -> TextStyle<'static> {
    let weight = match weight {
        Weight::Normal => FontStyle::Normal,
        Weight::Bold => FontStyle::Bold,
    };
    let font = (FAMILY, f64::from(size) * HEIGHT).into_font().style(weight);
    font.color(color).pos(Pos::new(to, VPos::Center))
}
