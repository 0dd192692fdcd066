//! Picture of a simulation: how fast a death and a gossip message become known. An SVG that stands
//! alone, reads in light and dark, and needs no script.

use std::fmt::Write as _;
use std::time::Duration;

use super::args::SimulateArgs;
use super::curve::Curve;
use super::run::Outcome;

const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 760.0;
const LEFT: f64 = 72.0;
const RIGHT: f64 = 32.0;
const PANEL_HEIGHT: f64 = 230.0;

/// Number of points along a curve; enough to look smooth at this width.
const POINTS: u32 = 160;

/// Largest number of thin lines behind a bold one: more are a blot.
const THIN_MAX: usize = 60;

const STYLE: &str = "\
svg { --page: #ffffff; --ink: #1c2024; --soft: #5b6470; --grid: #dfe3e8;
  --one: #1f6fd1; --two: #b4560b; --three: #0b7a5c; }
@media (prefers-color-scheme: dark) {
  svg { --page: #14171a; --ink: #e8eaed; --soft: #a2abb6; --grid: #30363d;
    --one: #62a8f5; --two: #f09b52; --three: #45c79d; }
}
.page { fill: var(--page); }
text { fill: var(--ink); font: 13px system-ui, sans-serif; }
.title { font-size: 18px; font-weight: 600; }
.head { font-size: 14px; font-weight: 600; }
.soft { fill: var(--soft); }
.middle { text-anchor: middle; }
.end { text-anchor: end; }
.grid { stroke: var(--grid); stroke-width: 1; fill: none; }
.axis { stroke: var(--soft); stroke-width: 1; fill: none; }
.one, .two, .three { fill: none; stroke-width: 2.5; stroke-linejoin: round; }
.one { stroke: var(--one); }
.two { stroke: var(--two); stroke-dasharray: 7 4; }
.three { stroke: var(--three); stroke-dasharray: 2 4; stroke-linecap: round; }
.thin { stroke-width: 1; opacity: 0.3; }
.mark { stroke: var(--ink); stroke-width: 1; stroke-dasharray: 3 3; opacity: 0.7; }
";

/// One set of axes and its curves.
struct Panel<'a> {
    top: f64,
    head: String,
    x_label: &'a str,
    y_label: &'a str,
    /// Bold curves: class, name, curve. The first has its p50, p99 and last marked.
    bold: Vec<(&'a str, String, Curve)>,
    /// Curves of which the first bold one is the sum.
    thin: Vec<Curve>,
}

/// Parameters of the run, in one line.
pub(super) fn parameters(args: &SimulateArgs) -> String {
    let how = if args.vanish { "vanish" } else { "die" };
    let quorum = format!("{:?}", args.quorum).to_lowercase();
    format!(
        "{} peers, {} seeds ({quorum}), {} {how} at once, loss {} %, latency {}, seed {}",
        args.peers,
        args.seeds,
        args.kill,
        (args.loss * 1e6).round() / 1e4,
        args.latency,
        args.seed,
    )
}

/// Draws a run.
pub(super) fn draw(args: &SimulateArgs, outcome: &Outcome) -> String {
    let deaths = death_panel(args, outcome);
    let gossip = gossip_panel(args, outcome);
    let mut svg = String::new();
    let title = parameters(args);
    let _ = writeln!(
        svg,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
         width=\"{WIDTH}\" height=\"{HEIGHT}\" role=\"img\" aria-labelledby=\"t d\">\n\
         <title id=\"t\">How news spread among {title}</title>\n\
         <desc id=\"d\">Shares of the members that knew, over the time since it happened: above \
         the removal of dead peers, below gossip messages.</desc>\n\
         <style>{STYLE}</style>\n\
         <rect class=\"page\" width=\"{WIDTH}\" height=\"{HEIGHT}\"/>\n\
         <text class=\"title\" x=\"{LEFT}\" y=\"34\">How news spread in a simulated fleet</text>\n\
         <text class=\"soft\" x=\"{LEFT}\" y=\"56\">{title}</text>"
    );
    draw_panel(&mut svg, &deaths);
    draw_panel(&mut svg, &gossip);
    svg.push_str("</svg>\n");
    svg
}

fn death_panel<'a>(args: &SimulateArgs, outcome: &Outcome) -> Panel<'a> {
    let deaths = &outcome.ledger.deaths;
    let (kill, survivors) = (usize::from(args.kill), usize::from(args.peers - args.kill));
    let learnt = deaths.values().flat_map(|it| it.learnt.iter().copied());
    let dropped = deaths.values().flat_map(|it| it.dropped.values().copied());
    let removed = deaths.values().flat_map(|it| it.removed.values().copied());
    let neighbors = deaths.values().map(|it| it.neighbors.len()).sum();
    let bold = vec![
        (
            "one",
            "survivors that know it is removed".to_owned(),
            Curve::new(learnt, kill * survivors),
        ),
        ("two", "neighbors that dropped it".to_owned(), Curve::new(dropped, neighbors)),
        (
            "three",
            "seeds that removed it".to_owned(),
            Curve::new(removed, kill * usize::from(args.seeds)),
        ),
    ];
    let each = deaths.values().take(THIN_MAX);
    Panel {
        top: 100.0,
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
        top: 430.0,
        head: format!("A gossip message spreads ({count} messages; thin: each of them)"),
        x_label: "seconds since it was made",
        y_label: "share that heard",
        bold: vec![("one", "members that heard it".to_owned(), all)],
        thin: each.map(|it| Curve::new(it.heard.iter().copied(), others)).collect(),
    }
}

impl Panel<'_> {
    /// Length of the time axis: a round number of seconds that holds all that happened.
    fn span(&self) -> (Duration, Duration) {
        let last = self.bold.iter().filter_map(|(_, _, curve)| curve.last()).max();
        let last = last.unwrap_or(Duration::from_secs(1)).max(Duration::from_millis(5));
        let step = step_of(last);
        let steps = last.as_micros() / step.as_micros() + 1;
        (step * u32::try_from(steps).unwrap_or(u32::MAX), step)
    }

    fn x(&self, at: Duration, span: Duration) -> f64 {
        LEFT + (WIDTH - LEFT - RIGHT) * (at.as_secs_f64() / span.as_secs_f64())
    }

    fn y(&self, share: f64) -> f64 {
        self.top + PANEL_HEIGHT * (1.0 - share.min(1.0))
    }
}

/// Distance of two ticks: 1, 2 or 5 times a power of ten, so that there are 4 to 10.
fn step_of(last: Duration) -> Duration {
    let mut scale = Duration::from_millis(1);
    loop {
        for factor in [1, 2, 5] {
            if last < scale * factor * 10 {
                return scale * factor;
            }
        }
        scale *= 10;
    }
}

fn draw_panel(svg: &mut String, panel: &Panel<'_>) {
    let (span, step) = panel.span();
    let (bottom, right) = (panel.y(0.0), WIDTH - RIGHT);
    let _ = writeln!(svg, "<g>");
    let head_y = panel.top - 14.0;
    let _ = writeln!(svg, "<text class=\"head\" x=\"{LEFT}\" y=\"{head_y}\">{}</text>", panel.head);
    for percent in [0, 25, 50, 75, 100] {
        let y = panel.y(f64::from(percent) / 100.0);
        let (x, text_y) = (LEFT - 8.0, y + 4.0);
        let _ = writeln!(
            svg,
            "<line class=\"grid\" x1=\"{LEFT}\" y1=\"{y:.1}\" x2=\"{right}\" y2=\"{y:.1}\"/>\
             <text class=\"soft end\" x=\"{x}\" y=\"{text_y:.1}\">{percent} %</text>"
        );
    }
    let mut at = Duration::ZERO;
    while at <= span {
        let (x, y) = (panel.x(at, span), bottom + 18.0);
        let seconds = (at.as_secs_f64() * 1_000.0).round() / 1_000.0;
        let (foot, tick) = (bottom + 5.0, bottom);
        let _ = writeln!(
            svg,
            "<line class=\"axis\" x1=\"{x:.1}\" y1=\"{tick}\" x2=\"{x:.1}\" y2=\"{foot}\"/>\
             <text class=\"soft middle\" x=\"{x:.1}\" y=\"{y}\">{seconds}</text>"
        );
        at += step;
    }
    let (mid_x, label_y) = (f64::midpoint(LEFT, right), bottom + 38.0);
    let mid_y = f64::midpoint(panel.top, bottom);
    let _ = writeln!(
        svg,
        "<path class=\"axis\" d=\"M{LEFT} {} V{bottom} H{right}\"/>\
         <text class=\"soft middle\" x=\"{mid_x}\" y=\"{label_y}\">{}</text>\
         <text class=\"soft middle\" transform=\"translate(20 {mid_y}) rotate(-90)\">{}</text>",
        panel.top, panel.x_label, panel.y_label
    );
    for curve in &panel.thin {
        draw_curve(svg, panel, curve, "one thin", span);
    }
    for (class, _, curve) in &panel.bold {
        draw_curve(svg, panel, curve, class, span);
    }
    draw_marks(svg, panel, span);
    draw_legend(svg, panel);
    let _ = writeln!(svg, "</g>");
}

fn draw_curve(svg: &mut String, panel: &Panel<'_>, curve: &Curve, class: &str, span: Duration) {
    if curve.last().is_none() {
        return;
    }
    let _ = write!(svg, "<polyline class=\"{class}\" points=\"");
    for point in 0..=POINTS {
        let at = span * point / POINTS;
        let _ = write!(svg, "{:.1},{:.1} ", panel.x(at, span), panel.y(curve.share(at)));
    }
    let _ = writeln!(svg, "\"/>");
}

/// Marks the times when half, 99 of 100 and the last knew, by the first curve.
fn draw_marks(svg: &mut String, panel: &Panel<'_>, span: Duration) {
    let Some((_, _, curve)) = panel.bold.first() else { return };
    let marks = [("p50", 0.5), ("p99", 0.99), ("last", 1.0)];
    let (top, bottom) = (panel.top, panel.y(0.0));
    for (row, (name, share)) in (0_u8..).zip(marks) {
        let Some(at) = curve.reached(share) else { continue };
        let x = panel.x(at, span);
        // Beside the line, on the side where there is room, each in a row of its own.
        let (text_x, class) = if x > WIDTH - 160.0 { (x - 5.0, "end") } else { (x + 5.0, "start") };
        let text_y = bottom - 48.0 + f64::from(row) * 17.0;
        let seconds = at.as_secs_f64();
        let _ = writeln!(
            svg,
            "<line class=\"mark\" x1=\"{x:.1}\" y1=\"{top}\" x2=\"{x:.1}\" y2=\"{bottom}\"/>\
             <text class=\"{class}\" x=\"{text_x:.1}\" y=\"{text_y:.1}\">\
             {name} {seconds:.3} s</text>"
        );
    }
}

fn draw_legend(svg: &mut String, panel: &Panel<'_>) {
    let mut x = LEFT;
    let y = panel.y(0.0) + 58.0;
    for (class, name, curve) in &panel.bold {
        let (end, text_x, line_y) = (x + 30.0, x + 38.0, y - 4.0);
        let last = curve
            .reached(1.0)
            .map_or("not all".to_owned(), |last| format!("all after {:.3} s", last.as_secs_f64()));
        let _ = writeln!(
            svg,
            "<line class=\"{class}\" x1=\"{x}\" y1=\"{line_y}\" x2=\"{end}\" y2=\"{line_y}\"/>\
             <text x=\"{text_x}\" y=\"{y}\">{name} ({last})</text>"
        );
        x += 54.0 + 7.0 * (name.len() + last.len() + 3) as f64;
    }
}
