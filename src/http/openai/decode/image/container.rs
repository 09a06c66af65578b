//! Walks over image containers without decoding them.
//!
//! Sources: PNG (ISO/IEC 15948) and APNG, JPEG (ITU-T T.81 annex B), GIF89a, the WebP container specification.

use super::Kind;

/// Most pixels of one image.
const MAX_PIXELS: u64 = 4096 * 4096;

const OTHER_TYPE: &str = "the data is not of the type that its media type says.";
const TRUNCATED: &str = "the image is cut off or damaged.";
const TOO_LARGE: &str = "the image may have at most 16.7 million pixels (4096 by 4096).";
const ANIMATED: &str = "the image must not be animated.";

type Verdict = Result<(), &'static str>;

/// Says what is wrong with an image file, if anything.
pub(super) fn check(kind: Kind, bytes: &[u8]) -> Verdict {
    let mut input = Input(bytes);
    match kind {
        Kind::Png => png(&mut input),
        Kind::Jpeg => jpeg(&mut input),
        Kind::Webp => webp(&mut input),
        Kind::Gif => gif(&mut input),
    }
}

fn size(width: u32, height: u32) -> Verdict {
    match u64::from(width) * u64::from(height) {
        0 => Err(TRUNCATED),
        1..=MAX_PIXELS => Ok(()),
        _ => Err(TOO_LARGE),
    }
}

/// Bytes that are still to be read; a read beyond the end is [`TRUNCATED`].
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], &'static str> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(TRUNCATED)?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], &'static str> {
        let (taken, rest) = self.0.split_first_chunk().ok_or(TRUNCATED)?;
        self.0 = rest;
        Ok(*taken)
    }

    fn byte(&mut self) -> Result<u8, &'static str> {
        self.array().map(|[byte]| byte)
    }

    /// Reads a fixed beginning; another one means another type of file.
    fn magic(&mut self, magic: &[u8]) -> Verdict {
        self.0 = self.0.strip_prefix(magic).ok_or(OTHER_TYPE)?;
        Ok(())
    }
}

fn png(input: &mut Input<'_>) -> Verdict {
    input.magic(b"\x89PNG\r\n\x1a\n")?;
    let mut sized = false;
    loop {
        let length = u32::from_be_bytes(input.array()?);
        let kind: [u8; 4] = input.array()?;
        let mut data = Input(input.take(length as usize)?);
        input.take(4)?; // The checksum; damage inside is for the decoder to find.
        match &kind {
            b"IHDR" => {
                size(u32::from_be_bytes(data.array()?), u32::from_be_bytes(data.array()?))?;
                sized = true;
            }
            b"acTL" => return Err(ANIMATED),
            b"IEND" if sized => return Ok(()),
            _ if !sized => return Err(TRUNCATED),
            _ => {}
        }
    }
}

fn jpeg(input: &mut Input<'_>) -> Verdict {
    input.magic(b"\xff\xd8\xff")?;
    let mut marker = input.byte()?;
    let mut sized = false;
    loop {
        match marker {
            // Start of scan: entropy-coded data up to the end mark follows. Cameras append more after it.
            0xda if sized => {
                let ended = input.0.windows(2).any(|pair| pair == [0xff, 0xd9]);
                return if ended { Ok(()) } else { Err(TRUNCATED) };
            }
            0xda | 0xd9 => return Err(TRUNCATED),
            0x01 | 0xd0..=0xd8 => {}
            _ => {
                let length = usize::from(u16::from_be_bytes(input.array()?));
                let mut segment = Input(input.take(length.checked_sub(2).ok_or(TRUNCATED)?)?);
                let frame = matches!(marker, 0xc0..=0xcf) && !matches!(marker, 0xc4 | 0xc8 | 0xcc);
                if frame {
                    segment.byte()?; // Bits a sample.
                    let height = u16::from_be_bytes(segment.array()?);
                    let width = u16::from_be_bytes(segment.array()?);
                    size(width.into(), height.into())?;
                    sized = true;
                }
            }
        }
        if input.byte()? != 0xff {
            return Err(TRUNCATED);
        }
        marker = input.byte()?;
        while marker == 0xff {
            marker = input.byte()?; // Fill bytes.
        }
    }
}

fn gif(input: &mut Input<'_>) -> Verdict {
    if input.magic(b"GIF89a").is_err() {
        input.magic(b"GIF87a")?;
    }
    let width = u16::from_le_bytes(input.array()?);
    let height = u16::from_le_bytes(input.array()?);
    size(width.into(), height.into())?;
    let flags = input.byte()?;
    input.take(2)?; // Background colour and aspect.
    skip_colours(input, flags)?;
    let mut frames = 0;
    loop {
        match input.byte()? {
            0x3b if frames == 1 => return Ok(()),
            0x21 => {
                input.byte()?; // Which extension.
                skip_blocks(input)?;
            }
            0x2c => {
                frames += 1;
                if frames > 1 {
                    return Err(ANIMATED);
                }
                gif_frame(input)?;
            }
            _ => return Err(TRUNCATED),
        }
    }
}

fn gif_frame(input: &mut Input<'_>) -> Verdict {
    input.take(4)?; // Its place.
    let width = u16::from_le_bytes(input.array()?);
    let height = u16::from_le_bytes(input.array()?);
    size(width.into(), height.into())?;
    let flags = input.byte()?;
    skip_colours(input, flags)?;
    input.byte()?; // Code size.
    skip_blocks(input)
}

fn skip_colours(input: &mut Input<'_>, flags: u8) -> Verdict {
    if flags & 0x80 != 0 {
        input.take(3 << ((flags & 7) + 1))?;
    }
    Ok(())
}

fn skip_blocks(input: &mut Input<'_>) -> Verdict {
    loop {
        match input.byte()? {
            0 => return Ok(()),
            length => input.take(length.into())?,
        };
    }
}

fn webp(input: &mut Input<'_>) -> Verdict {
    input.magic(b"RIFF")?;
    let length = u32::from_le_bytes(input.array()?);
    let mut file = Input(input.take(length as usize)?);
    file.magic(b"WEBP")?;
    loop {
        let kind: [u8; 4] = file.array()?;
        let length = u32::from_le_bytes(file.array()?) as usize;
        let mut data = Input(file.take(length)?);
        if length % 2 == 1 && !file.0.is_empty() {
            file.byte()?; // Padding.
        }
        match &kind {
            b"VP8 " => return vp8(&mut data),
            b"VP8L" => return vp8_lossless(&mut data),
            b"VP8X" => vp8_extended(&mut data)?,
            b"ANIM" | b"ANMF" => return Err(ANIMATED),
            _ => {}
        }
    }
}

/// RFC 6386 section 9.1: a three-byte frame tag, a start code, then 14 bits of width and of height.
fn vp8(data: &mut Input<'_>) -> Verdict {
    data.take(3)?;
    if data.array()? != [0x9d, 0x01, 0x2a] {
        return Err(TRUNCATED);
    }
    let width = u16::from_le_bytes(data.array()?) & 0x3fff;
    let height = u16::from_le_bytes(data.array()?) & 0x3fff;
    size(width.into(), height.into())
}

/// A signature byte, then 14 bits each of width - 1 and height - 1.
fn vp8_lossless(data: &mut Input<'_>) -> Verdict {
    if data.byte()? != 0x2f {
        return Err(TRUNCATED);
    }
    let bits = u32::from_le_bytes(data.array()?);
    size((bits & 0x3fff) + 1, (bits >> 14 & 0x3fff) + 1)
}

/// Flags, three reserved bytes, then 24 bits each of width - 1 and height - 1.
fn vp8_extended(data: &mut Input<'_>) -> Verdict {
    const ANIMATION: u8 = 0x02;
    if data.byte()? & ANIMATION != 0 {
        return Err(ANIMATED);
    }
    data.take(3)?;
    let [w0, w1, w2, h0, h1, h2] = data.array()?;
    size(u32::from_le_bytes([w0, w1, w2, 0]) + 1, u32::from_le_bytes([h0, h1, h2, 0]) + 1)
}
