//! Picture of a download, with the source and time of each piece: an SVG that stands alone, reads
//! in light and dark, and needs no script; or an HTML page around it with the same in a table.
//!
//! Memory is bounded: of more than [`DOTS_MAX`] pieces every second, third … is drawn, and the
//! picture says so. The sums are of all pieces.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use crate::cli::size::Size;
use crate::network::shares::name;
use crate::proto::swarm::{PeerId, PieceIndex, Pieces};

/// Largest number of pieces that are drawn; more are a blot, and a large file.
const DOTS_MAX: u32 = 6_000;

/// Number of sources with a color of their own; the others share one.
const COLORS: usize = 7;

const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 560.0;
const LEFT: f64 = 76.0;
const RIGHT: f64 = 28.0;
const TOP: f64 = 92.0;
const PLOT: f64 = 360.0;

const STYLE: &str = "\
svg { --page: #ffffff; --ink: #1c2024; --soft: #5b6470; --grid: #dfe3e8; --c0: #1f6fd1;
  --c1: #b4560b; --c2: #0b7a5c; --c3: #8a3fb5; --c4: #b8860b; --c5: #c0304f; --c6: #4b5563; }
@media (prefers-color-scheme: dark) {
  svg { --page: #14171a; --ink: #e8eaed; --soft: #a2abb6; --grid: #30363d; --c0: #62a8f5;
    --c1: #f09b52; --c2: #45c79d; --c3: #c48df0; --c4: #e5c04b; --c5: #f2708c; --c6: #9aa4b2; }
}
.page { fill: var(--page); }
text { fill: var(--ink); font: 13px system-ui, sans-serif; }
.title { font-size: 18px; font-weight: 600; }
.soft { fill: var(--soft); }
.middle { text-anchor: middle; }
.end { text-anchor: end; }
.grid { stroke: var(--grid); stroke-width: 1; }
.axis { stroke: var(--soft); stroke-width: 1; fill: none; }
.c0 { fill: var(--c0); } .c1 { fill: var(--c1); } .c2 { fill: var(--c2); } .c3 { fill: var(--c3); }
.c4 { fill: var(--c4); } .c5 { fill: var(--c5); } .c6 { fill: var(--c6); }
";

/// Pieces, bytes and times of one neighbor.
#[derive(Clone, Copy, Debug, Default)]
struct Source {
    pieces: u32,
    bytes: u64,
    first: Duration,
    last: Duration,
}

/// The progress of one download.
#[derive(Debug)]
pub(in crate::cli) struct Timeline {
    name: String,
    pieces: Pieces,
    /// One piece in so many is drawn.
    stride: u32,
    dots: Vec<(Duration, PieceIndex, PeerId)>,
    sources: BTreeMap<PeerId, Source>,
}

impl Timeline {
    /// The progress of a download that begins now.
    pub(in crate::cli) fn new(name: &str, pieces: Pieces) -> Self {
        let stride = pieces.count().div_ceil(DOTS_MAX).max(1);
        let (dots, sources) = (Vec::new(), BTreeMap::new());
        Self { name: name.to_owned(), pieces, stride, dots, sources }
    }

    /// Adds a piece that came at `at` after the beginning.
    pub(in crate::cli) fn add(&mut self, at: Duration, piece: PieceIndex, from: PeerId) {
        let bytes = u64::from(self.pieces.len(piece).unwrap_or(0));
        let source = self.sources.entry(from).or_insert(Source { first: at, ..Source::default() });
        source.pieces += 1;
        source.bytes += bytes;
        source.last = at;
        if piece.0.is_multiple_of(self.stride) {
            self.dots.push((at, piece, from));
        }
    }

    /// The picture in the format of the ending of `path`: a page for `.html`, or else an SVG alone.
    pub(in crate::cli) fn render(&self, path: &Path) -> String {
        let ending = path.extension().and_then(|it| it.to_str()).unwrap_or_default();
        if ["html", "htm"].contains(&ending.to_ascii_lowercase().as_str()) {
            self.html()
        } else {
            self.svg()
        }
    }

    /// Sources, the one that gave most first.
    fn ranking(&self) -> Vec<(PeerId, Source)> {
        let mut all: Vec<_> = self.sources.iter().map(|(peer, source)| (*peer, *source)).collect();
        all.sort_by_key(|(peer, source)| (std::cmp::Reverse(source.bytes), *peer));
        all
    }

    fn summary(&self) -> String {
        let came: u32 = self.sources.values().map(|it| it.pieces).sum();
        let bytes: u64 = self.sources.values().map(|it| it.bytes).sum();
        let seconds = self.end().as_secs_f64();
        let mut text = format!(
            "{came} of {} pieces ({}) in {seconds:.3} s from {} peers",
            self.pieces.count(),
            Size(bytes),
            self.sources.len()
        );
        if self.stride > 1 {
            let _ = write!(text, "; 1 of {} is drawn", self.stride);
        }
        text
    }

    fn end(&self) -> Duration {
        self.sources.values().map(|it| it.last).max().unwrap_or_default()
    }

    fn svg(&self) -> String {
        let (title, summary) = (escaped(&self.name), self.summary());
        let mut svg = String::new();
        let _ = writeln!(
            svg,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
             width=\"{WIDTH}\" height=\"{HEIGHT}\" role=\"img\" aria-labelledby=\"t d\">\n\
             <title id=\"t\">How {title} came</title>\n<desc id=\"d\">{summary}. Each dot is a \
             piece: when it came, where it belongs, and by its color from whom.</desc>\n\
             <style>{STYLE}</style>\n\
             <rect class=\"page\" width=\"{WIDTH}\" height=\"{HEIGHT}\"/>\n\
             <text class=\"title\" x=\"{LEFT}\" y=\"34\">How {title} came</text>\n\
             <text class=\"soft\" x=\"{LEFT}\" y=\"56\">{summary}</text>"
        );
        self.draw_axes(&mut svg);
        self.draw_dots(&mut svg);
        self.draw_legend(&mut svg);
        svg.push_str("</svg>\n");
        svg
    }

    fn x(&self, at: Duration) -> f64 {
        let end = self.end().max(Duration::from_millis(1)).as_secs_f64();
        LEFT + (WIDTH - LEFT - RIGHT) * at.as_secs_f64() / end
    }

    fn y(&self, piece: u32) -> f64 {
        TOP + PLOT * (1.0 - f64::from(piece) / f64::from(self.pieces.count().max(1)))
    }

    fn draw_axes(&self, svg: &mut String) {
        let (bottom, right) = (TOP + PLOT, WIDTH - RIGHT);
        for quarter in 0..=4 {
            let share = f64::from(quarter) / 4.0;
            let (y, at) = (bottom - PLOT * share, self.end().mul_f64(share));
            let piece = u64::from(self.pieces.count()) * quarter as u64 / 4;
            let (x, text_x, text_y) = (self.x(at), LEFT - 8.0, y + 4.0);
            let (foot, seconds) = (bottom + 20.0, at.as_secs_f64());
            let _ = writeln!(
                svg,
                "<line class=\"grid\" x1=\"{LEFT}\" y1=\"{y:.1}\" x2=\"{right}\" y2=\"{y:.1}\"/>\
                 <text class=\"soft end\" x=\"{text_x}\" y=\"{text_y:.1}\">{piece}</text>\
                 <text class=\"soft middle\" x=\"{x:.1}\" y=\"{foot}\">{seconds:.3}</text>"
            );
        }
        let (mid_x, mid_y, label_y) =
            (f64::midpoint(LEFT, right), f64::midpoint(TOP, bottom), bottom + 40.0);
        let _ = writeln!(
            svg,
            "<path class=\"axis\" d=\"M{LEFT} {TOP} V{bottom} H{right}\"/>\
             <text class=\"soft middle\" x=\"{mid_x}\" y=\"{label_y}\">seconds</text>\
             <text class=\"soft middle\" transform=\"translate(18 {mid_y}) rotate(-90)\">piece\
             </text>"
        );
    }

    fn draw_dots(&self, svg: &mut String) {
        for (rank, (peer, _)) in self.ranking().into_iter().enumerate() {
            let class = rank.min(COLORS - 1);
            let _ = write!(svg, "<g class=\"c{class}\">");
            for (at, piece, _) in self.dots.iter().filter(|(_, _, from)| *from == peer) {
                let (x, y) = (self.x(*at) - 1.5, self.y(piece.0) - 1.5);
                let _ = write!(svg, "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"3\" height=\"3\"/>");
            }
            svg.push_str("</g>\n");
        }
    }

    fn draw_legend(&self, svg: &mut String) {
        let ranking = self.ranking();
        for (rank, (peer, source)) in ranking.iter().take(COLORS).enumerate() {
            let (column, row) = ((rank % 3) as f64, (rank / 3) as f64);
            let (x, y) = (LEFT + column * 290.0, TOP + PLOT + 66.0 + row * 20.0);
            let (text_x, box_y) = (x + 16.0, y - 10.0);
            let label = match ranking.len().saturating_sub(COLORS) {
                more if more > 0 && rank == COLORS - 1 => format!("{} others", more + 1),
                _ => format!("{}: {}", name(*peer), Size(source.bytes)),
            };
            let _ = writeln!(
                svg,
                "<rect class=\"c{rank}\" x=\"{x}\" y=\"{box_y}\" width=\"10\" height=\"10\"/>\
                 <text x=\"{text_x}\" y=\"{y}\">{label}</text>"
            );
        }
    }

    fn html(&self) -> String {
        let (title, svg) = (escaped(&self.name), self.svg());
        let mut rows = String::new();
        for (peer, source) in self.ranking() {
            let span = source.last.saturating_sub(source.first);
            let _ = writeln!(
                rows,
                "<tr><td>{}</td><td>{}</td><td>{}</td><td>{:.3}</td><td>{:.3}</td></tr>",
                name(peer),
                source.pieces,
                Size(source.bytes),
                source.first.as_secs_f64(),
                span.as_secs_f64(),
            );
        }
        format!(
            "<!DOCTYPE html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width\">\n\
             <meta name=\"color-scheme\" content=\"light dark\">\n<title>How {title} came</title>\n\
             <style>body {{ font: 14px system-ui, sans-serif; margin: auto; max-width: 980px }} \
             td, th {{ padding: 2px 12px; text-align: right }} \
             td:first-child, th:first-child {{ text-align: left }} \
             svg {{ max-width: 100%; height: auto }}</style>\n{svg}\
             <table>\n<tr><th>from</th><th>pieces</th><th>bytes</th><th>first at, s</th>\
             <th>for, s</th></tr>\n{rows}</table>\n</html>\n"
        )
    }
}

/// Text that cannot be taken for markup.
fn escaped(text: &str) -> String {
    let text = crate::cli::text::escape(text);
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timeline(size: u64, sources: u32) -> Timeline {
        let pieces = Pieces::new(size, 10).unwrap();
        let mut timeline = Timeline::new("a <b>", pieces);
        for piece in 0..pieces.count() {
            let at = Duration::from_millis(u64::from(piece) * 10);
            timeline.add(at, PieceIndex(piece), PeerId(piece % sources));
        }
        timeline
    }

    #[test]
    fn every_piece_is_a_dot_of_the_color_of_its_source() {
        let svg = timeline(95, 2).render(Path::new("a.svg"));
        assert_eq!(svg.matches("width=\"3\"").count(), 10);
        assert!(svg.contains("10 of 10 pieces (95 B) in 0.090 s from 2 peers"), "{svg}");
        assert!(
            svg.contains("peer 00000000: 50 B") && svg.contains("peer 00000001: 45 B"),
            "{svg}"
        );
        assert!(svg.contains("How a &lt;b&gt; came") && !svg.contains("<b>"), "{svg}");
        assert!(svg.starts_with("<svg") && svg.ends_with("</svg>\n"));
    }

    #[test]
    fn a_page_has_the_picture_and_the_sums() {
        let page = timeline(95, 9).render(Path::new("a.HTML"));
        assert!(page.starts_with("<!DOCTYPE html>") && page.contains("</svg>"), "{page}");
        assert_eq!(page.matches("<tr><td>").count(), 9);
        assert!(page.contains("3 others"), "{page}");
    }

    #[test]
    fn a_picture_of_many_pieces_stays_small_and_says_so() {
        let timeline = timeline(1_000_000, 3);
        let svg = timeline.render(Path::new("a.svg"));
        assert!(svg.contains("100000 of 100000 pieces") && svg.contains("1 of 17 is drawn"));
        assert!(svg.matches("width=\"3\"").count() <= DOTS_MAX as usize && svg.len() < 600_000);
        let empty = Timeline::new("none", Pieces::new(0, 10).unwrap()).svg();
        assert!(empty.contains("0 of 0 pieces"), "{empty}");
    }
}
