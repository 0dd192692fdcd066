//! Pictures of runs and downloads: SVG with plain attributes, which every viewer and converter
//! shows alike, on a background of its own, so that it can be read on a light and a dark page.

use plotters::chart::MeshStyle;
use plotters::coord::Shift;
use plotters::coord::ranged1d::Ranged;
use plotters::prelude::{
    Color as _, DrawingArea, IntoDrawingArea as _, IntoFont as _, RGBColor, SVGBackend, ShapeStyle,
    Text, TextStyle,
};

use crate::cli::text::escape;

/// Area of a picture on which is drawn.
pub(in crate::cli) type Canvas<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Result of a drawing step.
pub(in crate::cli) type Drawn = Result<(), plotters::drawing::DrawingAreaErrorKind<std::io::Error>>;

/// Width of a picture in pixels.
const WIDTH: i32 = 960;

/// Units of a pixel: the library draws at whole units, and finer ones make smoother lines.
const UNITS: i32 = 4;

/// Largest number of characters of a title: more would be cut at the right.
const TITLE_MAX: usize = 70;

const PAPER: RGBColor = RGBColor(255, 255, 255);
pub(in crate::cli) const INK: RGBColor = RGBColor(28, 32, 36);
const SOFT: RGBColor = RGBColor(91, 100, 112);
const GRID: RGBColor = RGBColor(223, 227, 232);

/// Colors of curves and dots; each can be told from the others and from white.
pub(in crate::cli) const COLORS: [RGBColor; 7] = [
    RGBColor(31, 111, 209),
    RGBColor(180, 86, 11),
    RGBColor(11, 122, 92),
    RGBColor(138, 63, 181),
    RGBColor(184, 134, 11),
    RGBColor(192, 48, 79),
    RGBColor(75, 85, 99),
];

/// A length of so many pixels, in units of the drawing.
pub(in crate::cli) const fn px(pixels: i32) -> i32 {
    pixels * UNITS
}

/// A position of so many pixels, in units of the drawing.
pub(in crate::cli) const fn at(x: i32, y: i32) -> (i32, i32) {
    (px(x), px(y))
}

/// Style of a text of so many pixels.
pub(in crate::cli) fn font<'a>(pixels: i32, color: RGBColor) -> TextStyle<'a> {
    // The library counts with the height of a line, which is 1.24 times as much.
    ("sans-serif", f64::from(px(pixels)) * 1.24).into_font().color(&color)
}

/// Style of the text of axes and legends.
pub(in crate::cli) fn small<'a>() -> TextStyle<'a> {
    font(13, SOFT)
}

/// Style of a line of this width in units of the drawing.
pub(in crate::cli) fn stroke(color: RGBColor, opacity: f64, width: i32) -> ShapeStyle {
    color.mix(opacity).stroke_width(width.unsigned_abs())
}

/// Axes with plain lines, and a grid at their labels only.
pub(in crate::cli) fn plain<'m, 'a, 'b, X: Ranged, Y: Ranged>(
    mesh: &'m mut MeshStyle<'a, 'b, X, Y, SVGBackend<'a>>,
) -> &'m mut MeshStyle<'a, 'b, X, Y, SVGBackend<'a>> {
    mesh.label_style(small())
        .axis_desc_style(small())
        .axis_style(stroke(INK, 1.0, px(1)))
        .bold_line_style(stroke(GRID, 1.0, px(1)))
        .light_line_style(stroke(GRID, 0.0, 0))
        .set_all_tick_mark_size(px(5))
        .x_labels(10)
}

/// Words around a picture.
pub(in crate::cli) struct Words {
    /// Title of the picture.
    pub(in crate::cli) title: String,
    /// Line below the title.
    pub(in crate::cli) subtitle: String,
    /// Description for those who cannot see the picture.
    pub(in crate::cli) description: &'static str,
}

/// The SVG text of a picture of this height, in pixels.
pub(in crate::cli) fn svg(
    words: &Words,
    height: i32,
    draw: impl FnOnce(&Canvas<'_>) -> Drawn,
) -> String {
    let mut text = String::new();
    let size = (px(WIDTH).unsigned_abs(), px(height).unsigned_abs());
    {
        let canvas = SVGBackend::with_string(&mut text, size).into_drawing_area();
        let all = canvas.fill(&PAPER).and_then(|()| {
            canvas.draw(&Text::new(shortened(&words.title), at(24, 20), font(18, INK)))?;
            canvas.draw(&Text::new(words.subtitle.clone(), at(24, 46), small()))?;
            draw(&canvas.margin(px(72), 0, 0, 0))
        });
        all.and_then(|()| canvas.present()).expect("a picture in memory can be drawn");
    }
    // The library knows neither another unit than the pixel, nor words for those who cannot see.
    let drawn = format!("width=\"{}\" height=\"{}\"", size.0, size.1);
    let shown = format!("width=\"{WIDTH}\" height=\"{height}\" role=\"img\"");
    let text = text.replacen(&drawn, &shown, 1);
    let (title, about) = (markup(&words.title), markup(words.description));
    text.replacen(">\n", &format!(">\n<title>{title}</title>\n<desc>{about}</desc>\n"), 1)
}

fn shortened(title: &str) -> String {
    let title = escape(title);
    if title.chars().count() <= TITLE_MAX {
        return title.to_string();
    }
    title.chars().take(TITLE_MAX - 1).chain(['…']).collect()
}

/// Text that cannot be taken for markup.
pub(in crate::cli) fn markup(text: &str) -> String {
    let text = escape(text);
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_has_a_background_and_no_styles_and_its_title_fits() {
        let title = format!("<{}>", "a".repeat(200));
        let words = Words { title, subtitle: "1 & 2".to_owned(), description: "a \"plot\"" };
        let svg = svg(&words, 200, |_| Ok(()));
        assert!(
            svg.starts_with("<svg width=\"960\" height=\"200\" role=\"img\" viewBox=\"0 0 3840")
        );
        assert!(svg.contains("<title>&lt;aaa") && svg.contains("a &quot;plot&quot;</desc>"));
        assert!(svg.contains("fill=\"#FFFFFF\"") && svg.contains("1 &amp; 2"), "{svg}");
        assert!(svg.contains("aaa…") && svg.trim_end().ends_with("</svg>"), "{svg}");
        for word in ["<style", "class=", "var(", "currentColor"] {
            assert!(!svg.contains(word), "{word}: {svg}");
        }
    }
}
