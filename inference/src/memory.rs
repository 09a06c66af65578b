//! Whether a model fits before it is loaded: being killed for memory half-way would take the whole service along.

use std::fs;
use std::path::Path;

use crate::InferenceError;

/// Refuses a load that needs more memory than there is: the `device`'s own in bytes, else the machine's.
///
/// # Errors
/// [`InferenceError::ModelUnavailable`] with both figures.
pub(crate) fn preflight(needed: u64, device: Option<u64>) -> Result<(), InferenceError> {
    check(needed, device.or_else(available))
}

fn check(needed: u64, available: Option<u64>) -> Result<(), InferenceError> {
    match available {
        Some(available) if needed > available => Err(InferenceError::unavailable(format!(
            "loading needs {} MiB of memory, {} MiB are available",
            needed >> 20,
            available >> 20
        ))),
        // A system that does not say how much memory it has is not second-guessed.
        _ => Ok(()),
    }
}

/// Bytes that can be allocated now: the least of what the machine, the control group and the limits of the process
/// leave.
pub(crate) fn available() -> Option<u64> {
    let machine = read("/proc/meminfo").and_then(|text| available_in_meminfo(&text));
    let group =
        group_v2(Path::new("/sys/fs/cgroup")).or_else(|| group_v1(Path::new("/sys/fs/cgroup/memory")));
    let limits = read("/proc/self/limits").zip(read("/proc/self/status"));
    let process = limits.and_then(|(limits, status)| left_of_limits(&limits, &status));
    machine.into_iter().chain(group).chain(process).min()
}

/// Bytes that the limits on address space and data (`ulimit -v` and `-d`) leave; `None` without any.
fn left_of_limits(limits: &str, status: &str) -> Option<u64> {
    let left = |limit: &str, used: &str| {
        let soft = limits.lines().find_map(|line| line.strip_prefix(limit))?.split_whitespace().next()?;
        let used = status.lines().find_map(|line| line.strip_prefix(used))?.split_whitespace().next()?;
        let (soft, used) = (soft.parse::<u64>().ok()?, used.parse::<u64>().ok()?);
        Some(soft.saturating_sub(used.saturating_mul(1024)))
    };
    let pairs = [("Max address space", "VmSize:"), ("Max data size", "VmData:")];
    pairs.into_iter().filter_map(|(limit, used)| left(limit, used)).min()
}

fn read(path: impl AsRef<Path>) -> Option<String> {
    fs::read_to_string(path).ok()
}

/// `MemAvailable` of `/proc/meminfo`, which counts in KiB.
fn available_in_meminfo(text: &str) -> Option<u64> {
    let rest = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    rest.split_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1024)
}

fn group_v2(root: &Path) -> Option<u64> {
    let limit = read(root.join("memory.max"))?;
    let used = read(root.join("memory.current"))?;
    left_in_group(&limit, &used, &read(root.join("memory.stat")).unwrap_or_default(), "inactive_file")
}

fn group_v1(root: &Path) -> Option<u64> {
    let limit = read(root.join("memory.limit_in_bytes"))?;
    let used = read(root.join("memory.usage_in_bytes"))?;
    left_in_group(&limit, &used, &read(root.join("memory.stat")).unwrap_or_default(), "total_inactive_file")
}

/// Bytes left under a limit; `None` without one. Page cache counts as used but is given back on demand.
fn left_in_group(limit: &str, used: &str, stat: &str, reclaimable_key: &str) -> Option<u64> {
    let limit: u64 = limit.trim().parse().ok()?;
    let used: u64 = used.trim().parse().ok()?;
    let reclaimable = stat
        .lines()
        .find_map(|line| line.strip_prefix(reclaimable_key)?.strip_prefix(' ')?.trim().parse::<u64>().ok())
        .unwrap_or(0);
    Some(limit.saturating_sub(used.saturating_sub(reclaimable)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    #[test]
    fn meminfo_is_read_in_kibibytes() {
        let text = "MemTotal:       24576000 kB\nMemFree:          100 kB\nMemAvailable:    2048 kB\n";
        assert_eq!(available_in_meminfo(text), Some(2048 * 1024));
        assert_eq!(available_in_meminfo("MemTotal: 1 kB\n"), None);
        assert_eq!(available_in_meminfo("MemAvailable: lots\n"), None);
    }

    #[test]
    fn a_group_without_limit_says_nothing_and_page_cache_is_not_used_memory() {
        assert_eq!(left_in_group("max\n", "5\n", "", "inactive_file"), None);
        assert_eq!(
            left_in_group("1000\n", "400\n", "anon 1\ninactive_file 100\n", "inactive_file"),
            Some(700)
        );
        assert_eq!(left_in_group("1000\n", "4000\n", "", "inactive_file"), Some(0));
    }

    #[test]
    fn limits_of_the_process_count_in_bytes_and_its_use_in_kibibytes() {
        let status = "VmSize:\t    2048 kB\nVmData:\t    1024 kB\n";
        let limits = |space: &str, data: &str| {
            format!(
                "Limit                     Soft Limit           Hard Limit           Units     \n\
                     Max data size             {data:<20} unlimited            bytes     \n\
                     Max address space         {space:<20} unlimited            bytes     \n"
            )
        };
        assert_eq!(left_of_limits(&limits("unlimited", "unlimited"), status), None);
        assert_eq!(left_of_limits(&limits("3145728", "unlimited"), status), Some(1 << 20));
        assert_eq!(left_of_limits(&limits("3145728", "1048676"), status), Some(100));
        assert_eq!(left_of_limits(&limits("1", "unlimited"), status), Some(0));
    }

    #[test]
    fn too_large_is_unavailable() {
        assert_eq!(check(1000, Some(1000)), Ok(()));
        assert_eq!(check(1000, None), Ok(()));
        assert_eq!(check(1001, Some(1000)).map_err(|error| error.kind()), Err(ErrorKind::ModelUnavailable));
    }
}
