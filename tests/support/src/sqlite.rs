//! Somebody who does not let others write to an SQLite file.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;
use std::path::Path;

/// The byte of the `-shm` file that stands for the write lock in WAL mode (sqlite.org/walformat.html, §2.3).
const WRITE_LOCK: libc::off_t = 120;

/// The write lock of a database that is in WAL mode and open somewhere. Dropping it gives it back.
#[derive(Debug)]
pub struct SqliteLock {
    _held: File,
}

impl SqliteLock {
    /// Takes the lock once nobody else has it.
    ///
    /// # Panics
    /// When the file beside the database that holds locks is not there.
    pub fn take(database: &Path) -> Self {
        let path = format!("{}-shm", database.display());
        let file = File::options().read(true).write(true).open(path).expect("a database in WAL mode");
        let lock = libc::flock {
            l_type: libc::F_WRLCK as libc::c_short,
            l_whence: libc::SEEK_SET as libc::c_short,
            l_start: WRITE_LOCK,
            l_len: 1,
            l_pid: 0,
        };
        // Of the open file and not of the process, which may have the database open for reading too.
        // SAFETY: the descriptor is open, and the kernel only reads the structure.
        let taken = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_OFD_SETLKW, &lock) };
        assert_eq!(taken, 0, "{}", io::Error::last_os_error());
        Self { _held: file }
    }
}
