//! A body in chunks (RFC 9112, 7.1), however it is cut on its way.

use super::RequestFault;

/// The longest line between chunks: a size with its extensions, or a trailer.
const LINE_BYTES_MAX: usize = 256;

/// Trailers at most; they are read and forgotten.
const TRAILERS_MAX: usize = 16;

/// Takes a body out of its chunks.
#[derive(Debug, Default)]
pub struct Chunks {
    place: ChunkState,
    line: Vec<u8>,
    trailers: usize,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum ChunkState {
    /// In the line of a size.
    #[default]
    Size,
    /// Within a chunk, with so many bytes before its end.
    Within(usize),
    /// In the line end behind a chunk.
    Behind,
    /// After the last chunk.
    Trailers,
    /// Behind it all.
    End,
}

impl Chunks {
    /// Moves the body's bytes from `bytes` to the end of `body`, which may have `max` bytes.
    /// Returns how many of `bytes` were used up, and whether the body is whole; bytes that are not
    /// used up then belong to the next message.
    ///
    /// # Errors
    /// Fails if the bytes are no chunks, or the body is too long.
    pub fn take(
        &mut self,
        bytes: &[u8],
        body: &mut Vec<u8>,
        max: usize,
    ) -> Result<(usize, bool), RequestFault> {
        let mut rest = bytes;
        while self.place != ChunkState::End {
            if let ChunkState::Within(left) = self.place {
                let (now, later) = rest.split_at(left.min(rest.len()));
                body.extend_from_slice(now);
                rest = later;
                self.place = if now.len() == left {
                    ChunkState::Behind
                } else {
                    ChunkState::Within(left - now.len())
                };
                if rest.is_empty() {
                    break;
                }
                continue;
            }
            if !self.take_line(&mut rest)? {
                break;
            }
            let line = std::mem::take(&mut self.line);
            self.place = match self.place {
                ChunkState::Size => match size(&line)? {
                    0 => ChunkState::Trailers,
                    // Neither sum nor comparison can overflow: `body` is never longer.
                    len if len > max - body.len().min(max) => {
                        return Err(RequestFault::BodyTooLong);
                    }
                    len => ChunkState::Within(len),
                },
                ChunkState::Behind if line.is_empty() => ChunkState::Size,
                ChunkState::Behind => return Err(RequestFault::Malformed),
                ChunkState::Trailers if line.is_empty() => ChunkState::End,
                ChunkState::Trailers | ChunkState::Within(_) | ChunkState::End => {
                    self.trailers += 1;
                    if self.trailers > TRAILERS_MAX {
                        return Err(RequestFault::HeadTooLong);
                    }
                    ChunkState::Trailers
                }
            };
            self.line = line;
            self.line.clear();
        }
        Ok((bytes.len() - rest.len(), self.place == ChunkState::End))
    }

    /// True if a line is whole in `self.line`, without its end.
    fn take_line(&mut self, rest: &mut &[u8]) -> Result<bool, RequestFault> {
        while let Some((&byte, later)) = rest.split_first() {
            *rest = later;
            match (byte, self.line.last()) {
                (b'\n', Some(b'\r')) => {
                    self.line.pop();
                    return Ok(true);
                }
                (0 | b'\n', _) | (_, Some(b'\r')) => return Err(RequestFault::Malformed),
                _ if self.line.len() > LINE_BYTES_MAX => return Err(RequestFault::HeadTooLong),
                _ => self.line.push(byte),
            }
        }
        Ok(false)
    }
}

/// The size in a chunk's first line.
fn size(line: &[u8]) -> Result<usize, RequestFault> {
    let digits = line.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii_end();
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_hexdigit) {
        return Err(RequestFault::Malformed);
    }
    let text = std::str::from_utf8(digits).map_err(|_| RequestFault::Malformed)?;
    Ok(usize::from_str_radix(text, 16).unwrap_or(usize::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole(bytes: &[u8], step: usize) -> Result<(Vec<u8>, usize, bool), RequestFault> {
        let (mut chunks, mut body, mut used) = (Chunks::default(), Vec::new(), 0);
        for piece in bytes.chunks(step) {
            let (now, is_whole) = chunks.take(piece, &mut body, 10)?;
            used += now;
            if is_whole {
                return Ok((body, used, true));
            }
            assert_eq!(now, piece.len(), "all is used up before the end");
        }
        Ok((body, used, false))
    }

    #[test]
    fn a_body_is_the_same_however_it_is_cut() {
        let text = b"3;x=y\r\nabc\r\n0005 \r\n\r\n\n\0d\r\n0\r\nX: y\r\n\r\nGET ";
        for step in 1..text.len() {
            let (body, used, is_whole) = whole(text, step).unwrap();
            assert_eq!((body.as_slice(), is_whole), (&b"abc\r\n\n\0d"[..], true), "{step}");
            assert_eq!(used, text.len() - 4, "the next request is left alone");
        }
        for len in 0..text.len() - 4 {
            assert!(!whole(&text[..len], 7).unwrap().2, "{len}");
        }
    }

    #[test]
    fn what_is_no_chunk_or_too_much_is_refused() {
        for text in ["\r\n", "x\r\n", "-1\r\n", "+1\r\n", "0x1\r\n", " 1\r\n", "1\nA", "1\rA"] {
            assert_eq!(whole(text.as_bytes(), 1), Err(RequestFault::Malformed), "{text:?}");
        }
        assert_eq!(whole(b"1\r\nab\r\n", 3), Err(RequestFault::Malformed));
        assert_eq!(whole(b"0\r\na\nb\r\n\r\n", 3), Err(RequestFault::Malformed));
        assert_eq!(whole(b"b\r\n", 3), Err(RequestFault::BodyTooLong));
        assert_eq!(whole(b"6\r\nabcdef\r\n5\r\n", 3), Err(RequestFault::BodyTooLong));
        assert_eq!(whole(&[b'f'; 100], 100), Ok((vec![], 100, false)));
        let huge = [&[b'f'; 100][..], b"\r\n"].concat();
        assert_eq!(whole(&huge, 9), Err(RequestFault::BodyTooLong));
        assert_eq!(whole(&[b'1'; 300], 9), Err(RequestFault::HeadTooLong));
        let trailers = format!("0\r\n{}", "a: b\r\n".repeat(TRAILERS_MAX + 1));
        assert_eq!(whole(trailers.as_bytes(), 9), Err(RequestFault::HeadTooLong));
    }
}
