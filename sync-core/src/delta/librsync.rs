//! Reads the delta that fast_rsync writes: librsync's format, big-endian. Bounded, and trusting nothing.

use super::Op;

/// librsync's magic of a delta.
const MAGIC: [u8; 4] = 0x7273_0236u32.to_be_bytes();
const END: u8 = 0;
/// Up to here the command is the length of a literal.
const SHORT_LITERAL: u8 = 0x40;
/// Literal with a length of 1, 2, 4 or 8 bytes.
const LITERAL: u8 = 0x41;
/// Copy with an offset and a length of 1, 2, 4 or 8 bytes each.
const COPY: u8 = 0x45;
const COPY_END: u8 = 0x54;

/// Calls `each` with every op; `None` if the delta is broken or ends early, or `each` says so. The lengths of ops are
/// not bounded to those of [`Op`].
pub(super) fn parse<'a>(delta: &'a [u8], mut each: impl FnMut(Op<'a>) -> Option<()>) -> Option<()> {
    let mut rest = delta.strip_prefix(&MAGIC)?;
    loop {
        let (command, after) = rest.split_first()?;
        rest = after;
        match *command {
            END => return rest.is_empty().then_some(()),
            1..=SHORT_LITERAL => each(Op::Literal(take(&mut rest, usize::from(*command))?))?,
            LITERAL..COPY => {
                let len = number(&mut rest, 1 << (command - LITERAL))?;
                each(Op::Literal(take(&mut rest, usize::try_from(len).ok()?)?))?;
            }
            COPY..=COPY_END => {
                let offset = number(&mut rest, 1 << ((command - COPY) / 4))?;
                let len = number(&mut rest, 1 << ((command - COPY) % 4))?;
                each(Op::Copy { offset, len })?;
            }
            _ => return None,
        }
    }
}

fn take<'a>(rest: &mut &'a [u8], len: usize) -> Option<&'a [u8]> {
    let (part, after) = rest.split_at_checked(len)?;
    *rest = after;
    Some(part)
}

fn number(rest: &mut &[u8], len: usize) -> Option<u64> {
    let mut bytes = [0; 8];
    bytes[8 - len..].copy_from_slice(take(rest, len)?);
    Some(u64::from_be_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_is_read_and_every_cut_is_noticed() {
        let mut delta = MAGIC.to_vec();
        delta.extend([2, b'a', b'b']);
        delta.extend([LITERAL + 1, 0, 1, b'c']);
        delta.extend([COPY + 4, 1, 0, 7]);
        delta.extend([COPY_END, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 2]);
        delta.push(END);
        let read = |delta: &[u8]| {
            let mut ops = Vec::new();
            parse(delta, |op| {
                ops.push(format!("{op:?}"));
                Some(())
            })?;
            Some(ops)
        };
        let expected = [Op::Literal(b"ab"), Op::Literal(b"c"), Op::Copy { offset: 256, len: 7 }, Op::Copy { offset: 1, len: 2 }];
        assert_eq!(read(&delta).unwrap(), expected.map(|op| format!("{op:?}")));
        for cut in 0..delta.len() {
            assert_eq!(read(&delta[..cut]), None, "{cut}");
        }
        delta.push(0);
        assert_eq!(read(&delta), None);
        assert_eq!(read(&[&MAGIC[..], &[0x55]].concat()), None);
    }
}
