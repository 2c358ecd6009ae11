//! What the process asks of the operating system.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use rustix::thread::{CpuSet, sched_getaffinity};

/// Raises the soft limit of open files to the hard limit (getrlimit(2)): every session needs two.
pub(super) fn raise_descriptor_limit() {
    let limit = getrlimit(Resource::Nofile);
    if limit.current == limit.maximum {
        return;
    }
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }) {
        tracing::warn!("cannot raise RLIMIT_NOFILE: {error}; the limit stays {:?}", limit.current);
    }
}

/// Makes the kernel give this process ordinary pages only (PR_SET_THP_DISABLE(2const)).
///
/// The allocator asks for huge ones. A gateway's memory is many small things that come and go: 2 MiB pages of which a
/// few kilobytes are in use made up half of the resident memory, and gained nothing that could be measured.
pub(super) fn refuse_huge_pages() {
    // A kernel without them has none to refuse.
    let _ = rustix::thread::disable_transparent_huge_pages(true);
}

/// The CPUs that this process may run on (sched_getaffinity(2)), which taskset and cpusets of containers limit.
pub(super) fn cpus() -> Vec<usize> {
    let Ok(set) = sched_getaffinity(None) else { return vec![0] };
    (0..CpuSet::MAX_CPU).filter(|cpu| set.is_set(*cpu)).collect()
}

/// The CPU of each worker. Two workers on one CPU would take turns, so where there are more workers than CPUs the
/// kernel places them.
pub(super) fn placement(workers: usize, cpus: &[usize]) -> Vec<Option<usize>> {
    match workers {
        0 => cpus.iter().copied().map(Some).collect(),
        _ if workers <= cpus.len() => cpus[..workers].iter().copied().map(Some).collect(),
        _ => vec![None; workers],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn by_default_there_is_one_worker_per_cpu() {
        assert_eq!(placement(0, &[2, 5]), [Some(2), Some(5)]);
    }

    #[test]
    fn workers_are_pinned_only_if_each_has_a_cpu_of_its_own() {
        assert_eq!(placement(1, &[2, 5]), [Some(2)]);
        assert_eq!(placement(3, &[2, 5]), [None, None, None]);
    }

    #[test]
    fn this_process_may_run_somewhere() {
        assert!(!cpus().is_empty());
    }
}
