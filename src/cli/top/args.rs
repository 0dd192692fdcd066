//! Flags of `peer top`.

use std::path::PathBuf;

use clap::Args;

use crate::cli::args::AskArgs;

/// Smallest and largest number of columns or rows of a picture.
const SIZES: std::ops::RangeInclusive<u16> = 1..=1_000;

/// Arguments of `peer top`.
#[derive(Clone, Debug, Args)]
pub struct TopArgs {
    /// The port of the node of this machine [default: the first peer that runs here, else seed]
    #[arg(long, value_name = "P")]
    pub port: Option<u16>,
    /// Folder in which nodes keep their data
    #[arg(long, value_name = "DIR", default_value = "data")]
    pub data: PathBuf,
    /// The seed to ask.
    #[command(flatten)]
    pub ask: AskArgs,
    /// Print one picture as plain text, and end
    #[arg(long)]
    pub once: bool,
    /// Columns and rows of that picture [default: those of the terminal, else 80x24]
    #[arg(long, value_name = "WxH", value_parser = parse_size, requires = "once")]
    pub size: Option<PictureSize>,
    /// The pane to begin with: 1 to 6
    #[arg(long, value_name = "N", default_value_t = 1,
        value_parser = clap::value_parser!(u8).range(1..=6))]
    pub pane: u8,
    /// Draw without colors; the variable NO_COLOR does the same
    #[arg(long)]
    pub no_color: bool,
}

/// Size of a picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PictureSize {
    /// Number of columns.
    pub columns: u16,
    /// Number of rows.
    pub rows: u16,
}

fn parse_size(text: &str) -> Result<PictureSize, &'static str> {
    let parse = |text: &str| text.parse().ok().filter(|it| SIZES.contains(it));
    let size = text.split_once('x').and_then(|(columns, rows)| {
        Some(PictureSize { columns: parse(columns)?, rows: parse(rows)? })
    });
    size.ok_or("a size is COLUMNSxROWS, as in 120x40, up to 1000 each")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_size_has_columns_and_rows() {
        assert_eq!(parse_size("120x40"), Ok(PictureSize { columns: 120, rows: 40 }));
        for wrong in ["", "80", "x", "80x", "0x24", "80x24x3", "9999x1", "-1x2"] {
            assert!(parse_size(wrong).is_err(), "{wrong}");
        }
    }
}
