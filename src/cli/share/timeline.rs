//! Picture of a download, with the source and time of each piece: an SVG that stands alone, or an
//! HTML page around it with the same in a table.
//!
//! Memory is bounded: of more than [`DOTS_MAX`] pieces every second, third … is drawn, and the
//! picture says so. The sums are of all pieces.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use plotters::prelude::{ChartBuilder, Circle, Color as _, Text};

use crate::cli::picture::{COLORS, Canvas, Drawn, Words, at, markup, plain, px, small, svg};
use crate::cli::size::Size;
use crate::network::shares::name;
use crate::proto::swarm::{PeerId, PieceIndex, Pieces};

/// Largest number of pieces that are drawn; more are a blot, and a large file.
const DOTS_MAX: u32 = 6_000;

/// Height of the picture and of the axes with their dots.
const HEIGHT: i32 = 560;
const PLOT: i32 = 414;

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
        let peers = match self.sources.len() {
            1 => "1 peer".to_owned(),
            count => format!("{count} peers"),
        };
        let (count, bytes) = (self.pieces.count(), Size(bytes));
        let mut text = format!("{came} of {count} pieces ({bytes}) in {seconds:.3} s from {peers}");
        if self.stride > 1 {
            let _ = write!(text, "; 1 of {} is drawn", self.stride);
        }
        text
    }

    fn end(&self) -> Duration {
        self.sources.values().map(|it| it.last).max().unwrap_or_default()
    }

    fn svg(&self) -> String {
        let words = Words {
            title: format!("How {} came", self.name),
            subtitle: self.summary(),
            description: "Each dot is a piece: when it came, where it belongs, and by its color \
                          from whom.",
        };
        svg(&words, HEIGHT, |canvas| {
            let (plot, legend) = canvas.split_vertically(px(PLOT));
            self.draw_dots(&plot)?;
            self.draw_legend(&legend)
        })
    }

    fn draw_dots(&self, area: &Canvas<'_>) -> Drawn {
        let end = self.end().as_secs_f64().max(0.001) * 1.01;
        let mut chart = ChartBuilder::on(area)
            .margin_top(px(10))
            .margin_right(px(32))
            .margin_left(px(12))
            .x_label_area_size(px(44))
            .y_label_area_size(px(84))
            .build_cartesian_2d(0.0..end, 0..self.pieces.count().max(1))?;
        plain(&mut chart.configure_mesh()).x_desc("seconds").y_desc("piece").draw()?;
        for (rank, (peer, _)) in self.ranking().into_iter().enumerate() {
            let color = COLORS[rank.min(COLORS.len() - 1)];
            let dots = self.dots.iter().filter(|(_, _, from)| *from == peer);
            let dot = |(at, piece, _): &(Duration, PieceIndex, _)| {
                Circle::new((at.as_secs_f64(), piece.0), px(2), color.filled())
            };
            chart.draw_series(dots.map(dot))?;
        }
        Ok(())
    }

    fn draw_legend(&self, area: &Canvas<'_>) -> Drawn {
        let ranking = self.ranking();
        for ((rank, color), (peer, source)) in (0..).zip(COLORS).zip(&ranking) {
            let (x, y) = (84 + rank % 3 * 280, 8 + rank / 3 * 20);
            let label = match ranking.len().saturating_sub(COLORS.len()) {
                more if more > 0 && rank == 6 => format!("{} others", more + 1),
                _ => format!("{}: {}", name(*peer), Size(source.bytes)),
            };
            area.draw(&Circle::new(at(x, y + 6), px(5), color.filled()))?;
            area.draw(&Text::new(label, at(x + 12, y), small()))?;
        }
        Ok(())
    }

    fn html(&self) -> String {
        let (title, svg) = (markup(&self.name), self.svg());
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

#[cfg(test)]
mod tests {
    use super::*;

    const DOT: &str = "r=\"8\"";

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
        assert_eq!(svg.matches(DOT).count(), 10);
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
        let dots = svg.matches(DOT).count();
        assert!(dots > 5_000 && dots <= DOTS_MAX as usize && svg.len() < 800_000, "{}", svg.len());
        let empty = Timeline::new("none", Pieces::new(0, 10).unwrap()).svg();
        assert!(empty.contains("0 of 0 pieces"), "{empty}");
    }
}
