//! Draws each pod's share of the requests: a bar for each, and a line at the even share.

use plotters::{
    coord::types::RangedCoordf64, element::DashedPathElement, prelude::*, style::text_anchor::HPos,
};

use super::{
    Drawn, Row,
    canvas::{Area, INK, MARKS, MUTED, PLAIN, Plot, Weight, plot, style},
};
use crate::{run::Run, scenario::Scenario};

/// More bars than this would be too thin to see. Then pods of one kind share a bar, which shows their mean.
const MAX_BARS: usize = 24;

/// The space for the highest bar, and for the labels below.
const HEIGHT: i32 = 44;
const BELOW: i32 = 20;

/// The axis is the same for all policies.
pub(super) struct Axis {
    bars: Vec<Bar>,
    max: f64,
    fair: f64,
}

struct Bar {
    pods: Vec<usize>,
    label: Option<String>,
    color: RGBColor,
}

type Bars<'a> = Plot<'a, RangedCoordf64, RangedCoordf64>;

impl Axis {
    pub(super) fn new(scenario: &Scenario, rows: &[Row<'_>]) -> Self {
        let pods = rows.iter().map(|row| row.run.pods).max().unwrap_or(0);
        let bars = bars(scenario, pods);
        let runs = rows.iter().flat_map(|row| [Some(row.run), row.without]);
        let shares = runs.flatten().flat_map(|run| means(&bars, run));
        Self {
            max: shares.fold(0.0, f64::max),
            fair: 1.0 / pods as f64,
            bars,
        }
    }

    pub(super) fn draw(&self, cell: &Area<'_>, row: &Row<'_>) -> Drawn {
        let len = self.bars.len() as f64;
        let above = cell.dim_in_pixel().1 as i32 - HEIGHT - BELOW;
        let plot = plot(&cell.margin(above, BELOW, 0, 0), 0.0..len, 0.0..self.max);
        let shares = means(&self.bars, row.run);
        let without = row.without.map(|run| means(&self.bars, run));
        for (index, bar) in self.bars.iter().enumerate() {
            let without = without.as_ref().map(|without| without[index]);
            bar.draw(&plot, index as f64, shares[index], without)?;
        }
        let fair = [(0.0, self.fair), (len, self.fair)];
        plot.draw(&DashedPathElement::new(fair, 2, 3, INK.mix(0.6)))?;
        Ok(())
    }
}

impl Bar {
    /// Draws the bar. Its label has a line of its own above all bars.
    fn draw(&self, plot: &Bars<'_>, at: f64, share: f64, without: Option<f64>) -> Drawn {
        let rectangle =
            |share, style| Rectangle::new([(at + 0.16, share), (at + 0.84, 0.0)], style);
        plot.draw(&rectangle(share, self.color.filled()))?;
        if let Some(share) = without {
            plot.draw(&rectangle(share, self.color.stroke_width(1)))?;
        }
        let Some(label) = &self.label else {
            return Ok(());
        };
        let color = if self.color == PLAIN {
            MUTED
        } else {
            self.color
        };
        let style = |weight| style(HPos::Center, 11, weight, &color);
        let middle = EmptyElement::at((at + 0.5, 0.0));
        let share = Text::new(percent(share), (0, -HEIGHT - 10), style(Weight::Bold));
        let label = Text::new(label.clone(), (0, 10), style(Weight::Normal));
        plot.draw(&(middle + share + label))?;
        Ok(())
    }
}

/// A bar for each pod, or for each kind of pods.
fn bars(scenario: &Scenario, pods: usize) -> Vec<Bar> {
    let mark = |pod: usize| {
        scenario
            .marked
            .iter()
            .position(|(pods, _)| pods.contains(&pod))
    };
    let label = |mark: Option<usize>| mark.map(|mark| scenario.marked[mark].1.to_owned());
    let color = |mark: Option<usize>| mark.map_or(PLAIN, |mark| MARKS[mark % MARKS.len()]);
    if pods <= MAX_BARS {
        let bar = |pod| Bar {
            pods: vec![pod],
            label: label(mark(pod)),
            color: color(mark(pod)),
        };
        return (0..pods).map(bar).collect();
    }
    let kinds = (0..scenario.marked.len()).map(Some).chain([None]);
    kinds
        .map(|kind| {
            let pods: Vec<_> = (0..pods).filter(|&pod| mark(pod) == kind).collect();
            let name = label(kind).unwrap_or("good".to_owned());
            Bar {
                label: Some(format!("each of {} {name}", pods.len())),
                pods,
                color: color(kind),
            }
        })
        .collect()
}

/// For each bar, the mean of its pods' shares.
fn means(bars: &[Bar], run: &Run) -> Vec<f64> {
    let shares = run.shares();
    let share = |pod: &usize| shares.get(*pod).copied().unwrap_or(0.0);
    let mean = |bar: &Bar| bar.pods.iter().map(share).sum::<f64>() / bar.pods.len() as f64;
    bars.iter().map(mean).collect()
}

fn percent(share: f64) -> String {
    match share * 1e2 {
        0.0 => "0 %".to_owned(),
        ..0.01 => "<0.01 %".to_owned(),
        percent @ ..1.0 => format!("{percent:.2} %"),
        percent => format!("{percent:.1} %"),
    }
}
