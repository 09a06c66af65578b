//! Hashing files, and taking one member out of a zip archive (which a wheel is).
//!
//! All of it blocks, so it runs on tokio's blocking threads; how far it got is read from a counter.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use sha2::{Digest, Sha256};
use zip::ZipArchive;

use super::catalogue::Member;
use super::error::SourceError;

/// Bytes moved at a time.
const BLOCK: usize = 256 * 1024;

/// The SHA-256 of a file, lower-case hexadecimal, counting the bytes read.
pub(super) fn sha256_of(path: &Path, done: &AtomicU64) -> io::Result<String> {
    let mut hash = Sha256::new();
    pump(&mut File::open(path)?, &mut io::sink(), |block| hash.update(block), done)?;
    Ok(hex(hash))
}

/// Writes one member of an archive into a file from `offset` on, where the file then ends, flushed to disk.
///
/// # Errors
/// When the archive is damaged, the member is absent, or its size is not the one expected; the file then ends
/// at `offset` again.
pub(super) fn extract(
    archive: &Path,
    member: &Member,
    to: &Path,
    offset: u64,
    done: &AtomicU64,
) -> Result<(), SourceError> {
    let disk = || SourceError::disk(to);
    let mut out = File::options().create(true).write(true).truncate(false).open(to).map_err(disk())?;
    out.set_len(offset).map_err(disk())?;
    out.seek(SeekFrom::Start(offset)).map_err(disk())?;
    let result = write_member(archive, member, &mut out, to, done);
    if result.is_err() {
        // What matters is that nothing wrong is taken for a good beginning; a later check would find it too.
        out.set_len(offset).ok();
    }
    result
}

fn write_member(
    archive: &Path,
    member: &Member,
    out: &mut File,
    to: &Path,
    done: &AtomicU64,
) -> Result<(), SourceError> {
    let file = File::open(archive).map_err(SourceError::disk(archive))?;
    let mut zip = ZipArchive::new(file).map_err(|e| SourceError::Archive(e.to_string()))?;
    let absent = |e| SourceError::Archive(format!("{}: {e}", member.path));
    let entry = zip.by_name(member.path).map_err(absent)?;
    check_size(member.bytes, entry.size())?;
    // The size in the archive's own words may be wrong: one byte more than allowed is enough to see it.
    let mut limited = entry.take(member.bytes.saturating_add(1));
    let written = pump(&mut limited, out, |_| {}, done).map_err(SourceError::disk(to))?;
    check_size(member.bytes, written)?;
    out.sync_all().map_err(SourceError::disk(to))
}

/// Checks a size.
pub(super) fn check_size(expected: u64, found: u64) -> Result<(), SourceError> {
    if expected == found { Ok(()) } else { Err(SourceError::Size { expected, found }) }
}

/// Checks a hash.
pub(super) fn check_hash(expected: &str, found: String) -> Result<(), SourceError> {
    if expected.eq_ignore_ascii_case(&found) {
        return Ok(());
    }
    Err(SourceError::Hash { expected: expected.to_owned(), found })
}

/// Moves all bytes, showing each block and counting them.
fn pump(
    from: &mut impl Read,
    to: &mut impl Write,
    mut show: impl FnMut(&[u8]),
    done: &AtomicU64,
) -> io::Result<u64> {
    let mut block = vec![0; BLOCK];
    let mut total = 0;
    loop {
        let read = match from.read(&mut block) {
            Ok(0) => return Ok(total),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        show(&block[..read]);
        to.write_all(&block[..read])?;
        total += read as u64;
        done.store(total, Ordering::Relaxed);
    }
}

fn hex(hash: Sha256) -> String {
    hash.finalize().iter().fold(String::with_capacity(64), |mut text, byte| {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        text.push(DIGITS[usize::from(byte >> 4)].into());
        text.push(DIGITS[usize::from(byte & 15)].into());
        text
    })
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "tests")]

    use std::path::PathBuf;

    use zip::write::SimpleFileOptions;

    use super::*;
    use crate::models::testing::{TempDir, sha256_hex};

    fn archive(dir: &TempDir, member: &str, content: &[u8]) -> PathBuf {
        let path = dir.path().join("a.whl");
        let mut zip = zip::ZipWriter::new(File::create(&path).unwrap());
        zip.start_file("pkg/__init__.py", SimpleFileOptions::default()).unwrap();
        zip.start_file(member, SimpleFileOptions::default()).unwrap();
        zip.write_all(content).unwrap();
        zip.finish().unwrap();
        path
    }

    fn member(path: &'static str, bytes: u64) -> Member {
        Member { path, bytes, file: 0 }
    }

    #[test]
    fn members_are_put_one_behind_the_other() {
        let dir = TempDir::new();
        let content = vec![7; 600_000];
        let (from, to) = (archive(&dir, "pkg/m.gguf", &content), dir.path().join("out"));
        std::fs::write(&to, b"abcdef").unwrap();
        let done = AtomicU64::new(0);
        extract(&from, &member("pkg/m.gguf", 600_000), &to, 3, &done).unwrap();
        let whole = [b"abc".as_slice(), &content].concat();
        assert_eq!(std::fs::read(&to).unwrap(), whole);
        assert_eq!(done.load(Ordering::Relaxed), 600_000);
        assert_eq!(sha256_of(&to, &done).unwrap(), sha256_hex(&whole));
    }

    #[test]
    fn what_is_not_right_leaves_nothing_behind() {
        let dir = TempDir::new();
        let (from, to) = (archive(&dir, "pkg/m.gguf", b"model"), dir.path().join("out"));
        std::fs::write(&to, b"abc").unwrap();
        let done = AtomicU64::new(0);
        let size = extract(&from, &member("pkg/m.gguf", 4), &to, 3, &done);
        assert!(matches!(size, Err(SourceError::Size { expected: 4, found: 5 })), "{size:?}");
        let absent = extract(&from, &member("pkg/x.gguf", 5), &to, 3, &done);
        assert!(matches!(absent, Err(SourceError::Archive(_))), "{absent:?}");
        std::fs::write(&from, b"no zip").unwrap();
        let damaged = extract(&from, &member("pkg/m.gguf", 5), &to, 3, &done);
        assert!(matches!(damaged, Err(SourceError::Archive(_))), "{damaged:?}");
        assert_eq!(std::fs::read(&to).unwrap(), b"abc");
    }
}
