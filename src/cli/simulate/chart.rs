//! Picture of a simulation: how fast a death and a gossip message become known.

use std::time::Duration;

use plotters::element::DashedPathElement;
use plotters::prelude::{ChartBuilder, Circle, LineSeries, Text};
use plotters::style::{Color as _, RGBColor};

use super::args::SimulateArgs;
use super::curve::Curve;
use super::run::Outcome;
use crate::cli::picture::{
    COLORS, Canvas, Drawn, INK, Words, at, font, plain, px, small, stroke, svg,
};

/// Height of the picture and of its upper part.
const HEIGHT: i32 = 880;
const UPPER: i32 = 424;

/// Number of points along a curve; enough to look smooth at this width.
const POINTS: u32 = 320;

/// Largest number of thin lines behind a bold one: more are a blot.
const THIN_MAX: usize = 60;

/// Lengths of a dash and of the gap after it, of each bold curve.
const DASHES: [(i32, i32); 3] = [(px(10_000), 0), (px(7), px(4)), (px(2), px(4))];

/// One set of axes and its curves.
struct Panel<'a> {
    head: String,
    x_label: &'a str,
    y_label: &'a str,
    /// Bold curves with their names.
    bold: Vec<(&'a str, Curve)>,
    /// Curves of which the first bold one is the sum.
    thin: Vec<Curve>,
}

/// Draws a run.
pub(super) fn draw(args: &SimulateArgs, outcome: &Outcome) -> String {
    let (deaths, gossip) = (death_panel(args, outcome), gossip_panel(args, outcome));
    let words = Words {
        title: "How news spread in a simulated fleet".to_owned(),
        subtitle: args.title(),
        description: "Shares of the members that knew, over the time since it happened: above the \
                      removal of dead peers, below gossip messages.",
    };
    svg(&words, HEIGHT, |canvas| {
        let (upper, lower) = canvas.split_vertically(px(UPPER));
        draw_panel(&upper, &deaths)?;
        draw_panel(&lower, &gossip)
    })
}

fn death_panel<'a>(args: &SimulateArgs, outcome: &Outcome) -> Panel<'a> {
    let deaths = &outcome.ledger.deaths;
    let (kill, survivors) = (usize::from(args.kill), usize::from(args.peers - args.kill));
    let learnt = deaths.values().flat_map(|it| it.learnt.iter().copied());
    let dropped = deaths.values().flat_map(|it| it.dropped.values().copied());
    let removed = deaths.values().flat_map(|it| it.removed.values().copied());
    let neighbors = deaths.values().map(|it| it.neighbors.len()).sum();
    let seeds = kill * usize::from(args.seeds);
    let bold = vec![
        ("survivors that know it is removed", Curve::new(learnt, kill * survivors)),
        ("neighbors that dropped it", Curve::new(dropped, neighbors)),
        ("seeds that removed it", Curve::new(removed, seeds)),
    ];
    let each = deaths.values().take(THIN_MAX);
    Panel {
        head: format!("A dead peer becomes known ({kill} deaths at 0 s; thin: each of them)"),
        x_label: "seconds since the death",
        y_label: "share that knows",
        bold,
        thin: each.map(|it| Curve::new(it.learnt.iter().copied(), survivors)).collect(),
    }
}

fn gossip_panel<'a>(args: &SimulateArgs, outcome: &Outcome) -> Panel<'a> {
    let rumors = outcome.ledger.rumors();
    let others = usize::from(args.peers - 1);
    let heard = rumors.iter().flat_map(|it| it.heard.iter().copied());
    let all = Curve::new(heard, rumors.len() * others);
    let count = rumors.len();
    let each = rumors.iter().take(THIN_MAX);
    Panel {
        head: format!("A gossip message spreads ({count} messages; thin: each of them)"),
        x_label: "seconds since it was made",
        y_label: "share that heard",
        bold: vec![("members that heard it", all)],
        thin: each.map(|it| Curve::new(it.heard.iter().copied(), others)).collect(),
    }
}

impl Curve {
    /// Points of the curve up to `end` seconds.
    fn points(&self, end: f64) -> Vec<(f64, f64)> {
        if self.last().is_none() {
            return Vec::new();
        }
        let second = |point| end * f64::from(point) / f64::from(POINTS);
        let share = |second| self.share(Duration::from_secs_f64(second)).min(1.0);
        (0..=POINTS).map(second).map(|it| (it, share(it))).collect()
    }

    /// Times when half, 99 of 100 and the last knew, with their names.
    fn marks(&self) -> Vec<(&'static str, f64, f64)> {
        let marks = [("p50", 0.5), ("p99", 0.99), ("last", 1.0)];
        let reached = |share| self.reached(share).map(|it| it.as_secs_f64());
        marks.iter().filter_map(|(name, share)| Some((*name, reached(*share)?, *share))).collect()
    }
}

/// A line of dashes.
fn dashed<I>(
    points: I,
    (dash, gap): (i32, i32),
    color: RGBColor,
) -> DashedPathElement<I::IntoIter, i32>
where
    I: IntoIterator<IntoIter: Clone>,
{
    DashedPathElement::new(points, dash, gap, stroke(color, 1.0, px(5) / 2))
}

/// Text of a curve in the legend.
fn legend(name: &str, curve: &Curve) -> String {
    let mark = |(mark, second, _): &(_, f64, _)| format!("{mark} {second:.3} s");
    let marks: Vec<_> = curve.marks().iter().map(mark).collect();
    if marks.is_empty() { format!("{name}: none") } else { format!("{name}: {}", marks.join(", ")) }
}

fn draw_panel(area: &Canvas<'_>, panel: &Panel<'_>) -> Drawn {
    let last = panel.bold.iter().filter_map(|(_, curve)| curve.last()).max();
    let end = last.unwrap_or(Duration::from_secs(1)).as_secs_f64().max(0.005) * 1.03;
    area.draw(&Text::new(panel.head.clone(), at(24, 4), font(14, INK)))?;
    let mut top = 28;
    for ((name, curve), (color, dash)) in panel.bold.iter().zip(COLORS.into_iter().zip(DASHES)) {
        area.draw(&dashed([at(24, top + 7), at(54, top + 7)], dash, color))?;
        area.draw(&Text::new(legend(name, curve), at(62, top), small()))?;
        top += 19;
    }
    let mut chart = ChartBuilder::on(area)
        .margin_top(px(top + 10))
        .margin_right(px(32))
        .margin_bottom(px(14))
        .margin_left(px(12))
        .x_label_area_size(px(44))
        .y_label_area_size(px(68))
        .build_cartesian_2d(0.0..end, 0.0..1.0)?;
    plain(&mut chart.configure_mesh())
        .x_desc(panel.x_label)
        .y_desc(panel.y_label)
        .y_labels(6)
        .y_label_formatter(&|share| format!("{:.0} %", share * 100.0))
        .draw()?;
    for curve in &panel.thin {
        chart.draw_series(LineSeries::new(curve.points(end), stroke(COLORS[0], 0.3, px(1))))?;
    }
    for ((_, curve), (color, dash)) in panel.bold.iter().zip(COLORS.into_iter().zip(DASHES)) {
        let circle =
            |(_, second, share): (_, f64, f64)| Circle::new((second, share), px(4), color.filled());
        chart.draw_series([dashed(curve.points(end), dash, color)])?;
        chart.draw_series(curve.marks().into_iter().map(circle))?;
    }
    Ok(())
}
