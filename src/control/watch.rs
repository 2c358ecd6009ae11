//! `watch: true`: notices files that change, and asks for a reload.
//!
//! A thread looks at every file twice a second: size, inode and times. That sees what notifications miss (network
//! file systems, the link that a Kubernetes ConfigMap swaps) and cannot overflow. A change is told when a look has
//! found the same twice, so that a file is not read while somebody is still writing it.

use std::collections::BTreeMap;
use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};

use serde_yaml::Value;
use tokio::sync::mpsc::UnboundedSender;

use crate::config::LoadedObject;
use crate::config::bootstrap::Bootstrap;
use crate::limits::{WATCH_DEPTH_MAX, WATCH_FILES_MAX, WATCH_INTERVAL};

/// Fields of a DestinationRule that name files.
const FILES: [&str; 8] = [
    "caCertificates",
    "ca_certificates",
    "clientCertificate",
    "client_certificate",
    "privateKey",
    "private_key",
    "caCrl",
    "ca_crl",
];

/// The control thread's end of the watcher.
#[derive(Debug)]
pub(super) struct Watcher {
    paths: Sender<Vec<PathBuf>>,
}

impl Watcher {
    /// Starts the thread; every change is a message to `changes`.
    pub(super) fn spawn(changes: UnboundedSender<()>) -> std::io::Result<Self> {
        let (paths, orders) = channel();
        std::thread::Builder::new().name("watch".to_owned()).spawn(move || watch(&orders, &changes))?;
        Ok(Self { paths })
    }

    /// Watches these paths from now on; none: nothing.
    pub(super) fn set(&self, paths: Vec<PathBuf>) {
        // The thread ends only with the process.
        let _ = self.paths.send(paths);
    }
}

/// What a configuration was read from; none if it is not to be watched.
pub(super) fn paths(config: &Path, bootstrap: &Bootstrap, objects: &[LoadedObject]) -> Vec<PathBuf> {
    if !bootstrap.watch {
        return Vec::new();
    }
    let mut paths = vec![config.to_owned(), bootstrap.tls.credentials.clone()];
    paths.extend(bootstrap.resources.iter().cloned());
    paths.extend(bootstrap.tls.ca_certificates.clone());
    for object in objects.iter().filter(|object| object.object.kind == "DestinationRule") {
        let source = object.object.source();
        let folder = Path::new(source.file()).parent().unwrap_or(Path::new(""));
        named(&object.document.value(), folder, &mut paths);
    }
    paths.sort();
    paths.dedup();
    paths
}

/// Collects the files that a document names, relative to its folder.
fn named(value: &Value, folder: &Path, paths: &mut Vec<PathBuf>) {
    match value {
        Value::Mapping(fields) => {
            for (key, value) in fields {
                match (key.as_str(), value.as_str()) {
                    (Some(key), Some(file)) if FILES.contains(&key) => paths.push(folder.join(file)),
                    _ => named(value, folder, paths),
                }
            }
        }
        Value::Sequence(items) => items.iter().for_each(|item| named(item, folder, paths)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Tagged(_) => {}
    }
}

fn watch(orders: &Receiver<Vec<PathBuf>>, changes: &UnboundedSender<()>) {
    let mut paths = Vec::new();
    let mut look = Look::default();
    loop {
        match orders.recv_timeout(WATCH_INTERVAL) {
            // Files that changed while they were loaded differ from what the last look saw, and are told.
            Ok(new) if new == paths => {}
            Ok(new) => {
                paths = new;
                look = Look { told: prints(&paths), last: prints(&paths) };
            }
            Err(RecvTimeoutError::Timeout) if look.again(prints(&paths)) => {
                if changes.send(()).is_err() {
                    return;
                }
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

/// What tells two states of a file apart.
type Print = (u64, u64, u64, i64, i64);

/// The states of all files.
type Prints = BTreeMap<PathBuf, Print>;

/// What was seen when.
#[derive(Debug, Default)]
struct Look {
    /// When a change was last told.
    told: Prints,
    /// The last time.
    last: Prints,
}

impl Look {
    /// Compares with what is there now. Returns whether there is a change to tell.
    fn again(&mut self, now: Prints) -> bool {
        let settled = now == self.last;
        self.last = now;
        let changed = settled && self.last != self.told;
        if changed {
            self.told.clone_from(&self.last);
        }
        changed
    }
}

fn prints(paths: &[PathBuf]) -> Prints {
    let mut prints = Prints::new();
    for path in paths {
        collect(path, WATCH_DEPTH_MAX, &mut prints);
    }
    prints
}

/// Follows symbolic links, as loading does. What is missing or cannot be read is a state, too.
fn collect(path: &Path, depth: usize, prints: &mut Prints) {
    let Ok(metadata) = fs::metadata(path) else { return };
    if prints.len() >= WATCH_FILES_MAX {
        return;
    }
    prints.insert(path.to_owned(), print(&metadata));
    if metadata.is_dir() && depth > 0 {
        let entries = fs::read_dir(path).into_iter().flatten().flatten();
        entries.for_each(|entry| collect(&entry.path(), depth - 1, prints));
    }
}

/// The change time: unlike the modification time, no tool sets it back (`cp -p`, `tar`).
fn print(metadata: &Metadata) -> Print {
    (metadata.dev(), metadata.ino(), metadata.len(), metadata.ctime(), metadata.ctime_nsec())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;
    use std::sync::Arc;

    use super::*;
    use crate::control::fixture;
    use crate::route::table::{ObjectRef, Place};

    fn look_at(folder: &Path) -> (Look, Vec<PathBuf>) {
        let paths = vec![folder.to_owned()];
        (Look { told: prints(&paths), last: prints(&paths) }, paths)
    }

    #[test]
    fn a_change_is_told_once_and_when_it_has_settled() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("a.yaml"), "one").unwrap();
        let (mut look, paths) = look_at(folder.path());
        assert!(!look.again(prints(&paths)));
        fs::write(folder.path().join("a.yaml"), "two").unwrap(); // Equal in size.
        assert!(!look.again(prints(&paths)));
        assert!(look.again(prints(&paths)));
        assert!(!look.again(prints(&paths)));
        fs::remove_file(folder.path().join("a.yaml")).unwrap();
        assert!(!look.again(prints(&paths)));
        assert!(look.again(prints(&paths)));
    }

    #[test]
    fn the_swap_of_a_link_as_kubernetes_does_it_is_a_change() {
        let folder = tempfile::tempdir().unwrap();
        for version in ["v1", "v2"] {
            fs::create_dir(folder.path().join(version)).unwrap();
            fs::write(folder.path().join(version).join("a.yaml"), "same").unwrap();
        }
        symlink("v1", folder.path().join("..data")).unwrap();
        symlink("..data/a.yaml", folder.path().join("a.yaml")).unwrap();
        let (mut look, paths) = look_at(folder.path());
        symlink("v2", folder.path().join("..new")).unwrap();
        fs::rename(folder.path().join("..new"), folder.path().join("..data")).unwrap();
        assert!(!look.again(prints(&paths)));
        assert!(look.again(prints(&paths)));
    }

    #[test]
    fn the_swap_is_seen_where_only_a_file_is_named_too() {
        let folder = tempfile::tempdir().unwrap();
        for version in ["v1", "v2"] {
            fs::create_dir(folder.path().join(version)).unwrap();
            fs::write(folder.path().join(version).join("a.yaml"), "same").unwrap();
        }
        symlink("v1", folder.path().join("..data")).unwrap();
        symlink("..data/a.yaml", folder.path().join("a.yaml")).unwrap();
        let (mut look, paths) = look_at(&folder.path().join("a.yaml"));
        symlink("v2", folder.path().join("..new")).unwrap();
        fs::rename(folder.path().join("..new"), folder.path().join("..data")).unwrap();
        assert!(!look.again(prints(&paths)));
        assert!(look.again(prints(&paths)));
        // What Kubernetes does next, and what it does when the file is gone from the ConfigMap.
        fs::remove_dir_all(folder.path().join("v1")).unwrap();
        assert!(!look.again(prints(&paths)) && !look.again(prints(&paths)));
        fs::remove_file(folder.path().join("v2/a.yaml")).unwrap();
        assert!(!look.again(prints(&paths)));
        assert!(look.again(prints(&paths)));
    }

    #[test]
    fn a_loop_of_links_ends() {
        let folder = tempfile::tempdir().unwrap();
        symlink(folder.path(), folder.path().join("again")).unwrap();
        assert!(prints(&[folder.path().to_owned()]).len() <= WATCH_DEPTH_MAX + 1);
    }

    #[test]
    fn everything_that_a_configuration_names_is_watched() {
        let rule = LoadedObject {
            object: Arc::new(ObjectRef::new(
                "DestinationRule",
                "default",
                "a",
                Place::new(Arc::new("/etc/resources.d/a.yaml".to_owned()), 7),
            )),
            document: serde_yaml::from_str(
                "spec: {trafficPolicy: {portLevelSettings: [{tls: {caCertificates: ca.pem, privateKey: /k.pem}}]}}",
            )
            .unwrap(),
            created: None,
        };
        let mut bootstrap = fixture::bootstrap();
        assert!(paths(Path::new("/etc/p.yaml"), &bootstrap, std::slice::from_ref(&rule)).is_empty());
        bootstrap.watch = true;
        bootstrap.resources = vec!["/etc/resources.d".into()];
        let watched = paths(Path::new("/etc/p.yaml"), &bootstrap, &[rule]);
        for path in ["/etc/p.yaml", "/etc/resources.d", "/etc/resources.d/ca.pem", "/k.pem"] {
            assert!(watched.contains(&path.into()), "{path} is missing from {watched:?}");
        }
    }

    #[tokio::test]
    async fn the_thread_tells_of_a_change() {
        let folder = tempfile::tempdir().unwrap();
        let (sender, mut changes) = tokio::sync::mpsc::unbounded_channel();
        let watcher = Watcher::spawn(sender).unwrap();
        watcher.set(vec![folder.path().to_owned()]);
        // It may not have looked yet; whatever is written after its first look is a change.
        let told = async {
            for number in 0..1_000 {
                fs::write(folder.path().join("a.yaml"), number.to_string()).unwrap();
                if tokio::time::timeout(4 * WATCH_INTERVAL, changes.recv()).await.is_ok() {
                    return;
                }
            }
            panic!("no change was told");
        };
        tokio::time::timeout(std::time::Duration::from_secs(30), told).await.unwrap();
    }
}
