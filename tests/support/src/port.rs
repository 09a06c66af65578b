//! Ports for services that a test starts.

use std::fs::File;
use std::net::{Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicU16, Ordering};

/// Ports below the range that the kernel takes for outgoing connections, of which a test run makes many.
const FIRST: u16 = 20_000;
const COUNT: u16 = 12_000;

/// A port that no other test takes for as long as this lives, in this process or any other.
///
/// A port that is only found free may be chosen twice before either service has bound it; the second one then
/// exits, while its test talks to the first. So each is leased by a lock on a file named for it, which the
/// kernel gives back even when a test is killed.
#[derive(Debug)]
pub struct PortLease {
    number: u16,
    _lock: Option<File>,
}

impl PortLease {
    /// Leases a free port of the loopback interface.
    ///
    /// # Panics
    /// When all ports of the range are taken, or no file can be made.
    pub fn free() -> Self {
        static NEXT: AtomicU16 = AtomicU16::new(0);
        let folder = std::env::temp_dir().join("opossum-ports");
        std::fs::create_dir_all(&folder).expect("a folder for leases");
        let spread = (std::process::id() % 1000) as u16 * 12;
        for _ in 0..COUNT {
            let number = FIRST + (spread + NEXT.fetch_add(1, Ordering::Relaxed) % COUNT) % COUNT;
            let lock = File::create(folder.join(number.to_string())).expect("a file for the lease");
            if lock.try_lock().is_ok() && TcpListener::bind((Ipv4Addr::LOCALHOST, number)).is_ok() {
                return Self { number, _lock: Some(lock) };
            }
        }
        panic!("all {COUNT} ports from {FIRST} on are taken");
    }

    /// A port as it is, for a test that wants it taken.
    pub fn unleased(number: u16) -> Self {
        Self { number, _lock: None }
    }

    /// The port.
    pub fn number(&self) -> u16 {
        self.number
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_port_is_leased_twice_though_nobody_binds_it() {
        let leases: Vec<_> = (0..50).map(|_| PortLease::free()).collect();
        let mut numbers: Vec<_> = leases.iter().map(PortLease::number).collect();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), 50);
        let again = File::create(std::env::temp_dir().join(format!("opossum-ports/{}", numbers[0])));
        assert!(again.is_ok_and(|file| file.try_lock().is_err()), "the lease does not hold");
    }
}
