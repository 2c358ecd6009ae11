//! Labels of the Istio metrics, and how a row is found without copying them.
//!
//! A label never takes a value that a client chose: hosts and clusters come from resources, flags from a fixed list.

use std::borrow::Borrow;
use std::hash::{Hash, Hasher};

use super::metrics::{RequestLabels, TunnelLabels};
use super::record::Record;

/// What a label says when no resource has a word for it.
pub(super) const UNKNOWN: &str = "unknown";

/// Labels as a record shows them: borrowed, so that the row of a known label set is found without an allocation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct LabelView<'a> {
    pub(super) service: &'a str,
    pub(super) service_name: &'a str,
    pub(super) status: u16,
    pub(super) flags: &'static str,
    pub(super) originated_tls: bool,
}

impl<'a> LabelView<'a> {
    /// The labels of a request or a session.
    pub(super) fn of(record: &Record<'a>) -> Self {
        let http = record.http.as_ref();
        Self {
            service: record.service.unwrap_or(UNKNOWN),
            service_name: record.cluster.map_or(UNKNOWN, service_name),
            status: http.map_or(0, |http| http.status),
            flags: known_flags(record.flags),
            originated_tls: record.originated_tls,
        }
    }

    /// The row that takes what finds no room: flags are few, so these rows are few too.
    pub(super) fn overflow(self) -> Self {
        Self { service: UNKNOWN, service_name: UNKNOWN, status: 0, ..self }
    }
}

/// The service of a cluster's name: `outbound|443||www.googleapis.com` serves `www.googleapis.com`, and
/// `BlackHoleCluster` itself.
fn service_name(cluster: &str) -> &str {
    cluster.rsplit('|').next().unwrap_or(cluster)
}

/// Flags are a closed set; anything else would be a label that somebody made up.
fn known_flags(flags: &str) -> &'static str {
    const KNOWN: [&str; 22] = [
        "-", "UH", "UF", "UO", "NR", "NC", "URX", "UT", "UC", "UR", "UPE", "LR", "DC", "DPE", "DT", "SI", "DF",
        "UF,URX", "UC,URX", "FI", "DI", "DI,FI",
    ];
    KNOWN.into_iter().find(|known| *known == flags).unwrap_or("other")
}

/// Anything that can be looked up as a label set: the owned keys of the maps, and [`LabelView`].
pub(super) trait Labels {
    fn view(&self) -> LabelView<'_>;
}

impl Labels for LabelView<'_> {
    fn view(&self) -> LabelView<'_> {
        *self
    }
}

impl Labels for RequestLabels {
    fn view(&self) -> LabelView<'_> {
        LabelView {
            service: &self.service,
            service_name: &self.service_name,
            status: self.status,
            flags: self.flags,
            originated_tls: self.originated_tls,
        }
    }
}

impl Labels for TunnelLabels {
    fn view(&self) -> LabelView<'_> {
        LabelView {
            service: &self.service,
            service_name: &self.service_name,
            status: 0,
            flags: self.flags,
            originated_tls: self.originated_tls,
        }
    }
}

impl Hash for dyn Labels + '_ {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.view().hash(state);
    }
}

impl PartialEq for dyn Labels + '_ {
    fn eq(&self, other: &Self) -> bool {
        self.view() == other.view()
    }
}

impl Eq for dyn Labels + '_ {}

impl<'a> Borrow<dyn Labels + 'a> for RequestLabels {
    fn borrow(&self) -> &(dyn Labels + 'a) {
        self
    }
}

impl<'a> Borrow<dyn Labels + 'a> for TunnelLabels {
    fn borrow(&self) -> &(dyn Labels + 'a) {
        self
    }
}

// A map finds an owned key by its view only if both hash alike.
impl Hash for RequestLabels {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.view().hash(state);
    }
}

impl Hash for TunnelLabels {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.view().hash(state);
    }
}

impl From<LabelView<'_>> for RequestLabels {
    fn from(view: LabelView<'_>) -> Self {
        Self {
            service: view.service.into(),
            service_name: view.service_name.into(),
            status: view.status,
            flags: view.flags,
            originated_tls: view.originated_tls,
        }
    }
}

impl From<LabelView<'_>> for TunnelLabels {
    fn from(view: LabelView<'_>) -> Self {
        let (service, service_name) = (view.service.into(), view.service_name.into());
        Self { service, service_name, flags: view.flags, originated_tls: view.originated_tls }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_service_of_a_cluster_is_its_last_part() {
        assert_eq!(service_name("outbound|443||www.googleapis.com"), "www.googleapis.com");
        assert_eq!(service_name("outbound|443|v2|*.example.com"), "*.example.com");
        assert_eq!(service_name("BlackHoleCluster"), "BlackHoleCluster");
    }

    #[test]
    fn flags_outside_the_list_are_one_label() {
        assert_eq!(known_flags("UH"), "UH");
        assert_eq!(known_flags("made-up"), "other");
    }
}
