//! A body in gzip, written as it comes. Nothing gets smaller: blocks are stored, which any reader must understand.

/// Wraps one body.
#[derive(Debug)]
pub(super) struct Gzip {
    begun: bool,
    crc: u32,
    length: u32,
}

impl Gzip {
    pub(super) fn new() -> Self {
        Self { begun: false, crc: !0, length: 0 }
    }

    /// These bytes, wrapped.
    pub(super) fn wrap(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(bytes.len() + 32);
        self.head(&mut out);
        for part in bytes.chunks(0xffff) {
            self.crc = part.iter().fold(self.crc, |crc, byte| step(crc, *byte));
            let length = u16::try_from(part.len()).unwrap_or(u16::MAX);
            self.length = self.length.wrapping_add(u32::from(length));
            stored(&mut out, 0, length);
            out.extend_from_slice(part);
        }
        out
    }

    /// What ends the body.
    pub(super) fn end(&mut self) -> Vec<u8> {
        let mut out = Vec::new();
        self.head(&mut out);
        stored(&mut out, 1, 0);
        out.extend_from_slice(&(!self.crc).to_le_bytes());
        out.extend_from_slice(&self.length.to_le_bytes());
        out
    }

    fn head(&mut self, out: &mut Vec<u8>) {
        if !std::mem::replace(&mut self.begun, true) {
            out.extend_from_slice(&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255]);
        }
    }
}

fn stored(out: &mut Vec<u8>, last: u8, length: u16) {
    out.push(last);
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(&(!length).to_le_bytes());
}

/// CRC-32 of one more byte.
fn step(crc: u32, byte: u8) -> u32 {
    (0..8).fold(crc ^ u32::from(byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_form_is_that_of_rfc_1952() {
        let mut gzip = Gzip::new();
        let mut bytes = gzip.wrap(b"12345");
        bytes.extend(gzip.wrap(b"6789"));
        bytes.extend(gzip.end());
        let head = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
        let blocks = b"\x00\x05\x00\xfa\xff12345\x00\x04\x00\xfb\xff6789\x01\x00\x00\xff\xff";
        let tail = [&0xcbf4_3926_u32.to_le_bytes()[..], &9_u32.to_le_bytes()[..]].concat();
        assert_eq!(bytes, [&head[..], &blocks[..], &tail[..]].concat());
    }
}
