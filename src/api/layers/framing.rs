//! The framing of gRPC messages: one byte of flag, four of length, the message.

const PREFIX_BYTES: usize = 5;

/// Why a message is not let through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    /// Its length is above the limit.
    TooLarge { found: usize },
    /// Its flag is not "not compressed".
    Flagged,
}

/// How far a chunk of a body takes the message that it continues.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Advance {
    /// Bytes of the chunk that belong to this message; all of them unless the message ends in it.
    pub(super) bytes: usize,
    /// Whether the message ends with them.
    pub(super) ends: bool,
}

/// Follows a body from message to message, and judges each by its prefix.
#[derive(Debug, Default)]
pub(super) struct Framing {
    prefix: [u8; PREFIX_BYTES],
    prefix_bytes: usize,
    left: usize,
    messages: u64,
}

impl Framing {
    /// Whether a message has begun and not ended.
    pub(super) fn is_within(&self) -> bool {
        self.prefix_bytes > 0
    }

    /// How many messages have ended.
    pub(super) fn messages(&self) -> u64 {
        self.messages
    }

    /// Takes up `chunk` to the end of the message, or as far as it goes.
    pub(super) fn advance(&mut self, chunk: &[u8], limit: usize) -> Result<Advance, Refused> {
        let mut bytes = 0;
        if self.prefix_bytes < PREFIX_BYTES {
            bytes = self.take_prefix(chunk);
            if self.prefix_bytes < PREFIX_BYTES {
                return Ok(Advance { bytes, ends: false });
            }
            self.left = judge(self.prefix, limit)?;
        }
        let content = self.left.min(chunk.len() - bytes);
        self.left -= content;
        let ends = self.left == 0;
        if ends {
            self.prefix_bytes = 0;
            self.messages += 1;
        }
        Ok(Advance { bytes: bytes + content, ends })
    }

    fn take_prefix(&mut self, chunk: &[u8]) -> usize {
        let missing = self.prefix.iter_mut().skip(self.prefix_bytes);
        let taken = missing.zip(chunk).map(|(to, from)| *to = *from).count();
        self.prefix_bytes += taken;
        taken
    }
}

fn judge([flag, length @ ..]: [u8; PREFIX_BYTES], limit: usize) -> Result<usize, Refused> {
    if flag != 0 {
        return Err(Refused::Flagged);
    }
    let length = usize::try_from(u32::from_be_bytes(length)).unwrap_or(usize::MAX);
    if length > limit { Err(Refused::TooLarge { found: length }) } else { Ok(length) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(flag: u8, content: &[u8]) -> Vec<u8> {
        let length = u32::try_from(content.len()).unwrap().to_be_bytes();
        [&[flag], &length[..], content].concat()
    }

    #[test]
    fn messages_are_found_however_the_body_is_cut() {
        let body = [message(0, b"abc"), message(0, b""), message(0, &[7; 300])].concat();
        for size in 1..body.len() {
            let mut framing = Framing::default();
            let mut ends = Vec::new();
            let mut position = 0;
            for chunk in body.chunks(size) {
                let mut rest = chunk;
                while !rest.is_empty() {
                    let advance = framing.advance(rest, 300).unwrap();
                    position += advance.bytes;
                    if advance.ends {
                        ends.push(position);
                    }
                    rest = &rest[advance.bytes..];
                }
            }
            assert_eq!((ends, framing.messages()), (vec![8, 13, 318], 3), "cut at {size}");
            assert!(!framing.is_within());
        }
    }

    #[test]
    fn a_message_above_the_limit_is_refused_by_its_prefix() {
        let mut framing = Framing::default();
        assert_eq!(framing.advance(&[0, 0, 0, 1, 45], 300), Err(Refused::TooLarge { found: 301 }));
        let mut framing = Framing::default();
        assert_eq!(framing.advance(&[0, 0, 0, 1, 44], 300), Ok(Advance { bytes: 5, ends: false }));
        assert!(framing.is_within());
    }

    #[test]
    fn a_message_that_says_it_is_compressed_is_refused() {
        assert_eq!(Framing::default().advance(&message(1, b"x"), 300), Err(Refused::Flagged));
    }
}
