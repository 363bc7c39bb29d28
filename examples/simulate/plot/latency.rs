//! Draws how fast requests were answered: the median, the 99th and the 99.9th percentile.

use std::time::Duration;

use plotters::{
    coord::{combinators::LogCoord, types::RangedCoordf64},
    prelude::*,
    style::text_anchor::HPos,
};

use super::{
    Drawn, Row,
    canvas::{Area, FAINT, INK, MUTED, PLAIN, Plot, Weight, plot, style},
};
use crate::{report, run::Run};

const QUANTILES: [f64; 3] = [0.5, 0.99, 0.999];

/// From light to dark, in the order of `QUANTILES`.
const COLORS: [RGBColor; 3] = [
    RGBColor(120, 190, 170),
    RGBColor(0, 140, 105),
    RGBColor(0, 84, 64),
];

/// In milliseconds, the same for all policies.
pub(super) struct Axis {
    min: f64,
    max: f64,
}

type Dots<'a> = Plot<'a, LogCoord<f64>, RangedCoordf64>;

impl Axis {
    pub(super) fn new(rows: &[Row<'_>]) -> Self {
        let runs = rows.iter().flat_map(|row| [Some(row.run), row.without]);
        let times: Vec<_> = runs.flatten().flat_map(quantiles).collect();
        // Leaves room for labels on both sides.
        Self {
            min: times.iter().copied().fold(f64::MAX, f64::min) / 1.6,
            max: times.iter().copied().fold(0.0, f64::max) * 1.6,
        }
    }

    fn plot<'a>(&self, area: &Area<'a>) -> Dots<'a> {
        plot(area, (self.min..self.max).log_scale(), 0.0..1.0)
    }

    /// Draws lines at the powers of ten, down to their labels.
    pub(super) fn ticks(&self, column: &Area<'_>) -> Drawn {
        let plot = self.plot(&column.margin(0, 18, 0, 0));
        let powers = (-1..6).map(|power| 10_f64.powi(power));
        for tick in powers.filter(|tick| (self.min..self.max).contains(tick)) {
            plot.draw(&PathElement::new([(tick, 0.0), (tick, 1.0)], FAINT))?;
            let style = style(HPos::Center, 11, Weight::Normal, &MUTED);
            let label = Text::new(tick_label(tick), (0, 11), style);
            plot.draw(&(EmptyElement::at((tick, 0.0)) + label))?;
        }
        Ok(())
    }

    pub(super) fn draw(&self, cell: &Area<'_>, row: &Row<'_>) -> Drawn {
        let plot = self.plot(cell);
        let times = quantiles(row.run);
        let line = PathElement::new([(times[0], 0.5), (times[2], 0.5)], PLAIN.stroke_width(2));
        plot.draw(&line)?;
        if let Some(without) = row.without {
            for time in quantiles(without) {
                plot.draw(&Circle::new((time, 0.5), 5, PLAIN.stroke_width(1)))?;
            }
        }
        for (time, color) in times.into_iter().zip(COLORS) {
            plot.draw(&Circle::new((time, 0.5), 5, color.filled()))?;
        }
        for (label, time) in times.into_iter().enumerate() {
            // Above, below, above: neighbours may be close.
            let offset = if label == 1 { 17 } else { -16 };
            let style = style(HPos::Center, 11, Weight::Normal, &INK);
            let text = report::time(Duration::from_secs_f64(time / 1e3));
            plot.draw(&(EmptyElement::at((time, 0.5)) + Text::new(text, (0, offset), style)))?;
        }
        Ok(())
    }
}

fn quantiles(run: &Run) -> [f64; 3] {
    QUANTILES.map(|part| run.quantile(part).as_secs_f64() * 1e3)
}

fn tick_label(milliseconds: f64) -> String {
    if milliseconds < 1e3 {
        format!("{milliseconds} ms")
    } else {
        format!("{} s", milliseconds / 1e3)
    }
}
