//! The events that the cluster keeps of its pods, as far as they are about ours. Lossy by nature: nothing is
//! decided by them but how long to wait, and what to tell.

use std::collections::HashMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Event as ClusterEvent;

use super::session::Place;

/// Kept of one pod.
const MAX: usize = 64;

/// Which pod an event is about.
pub(super) fn place(event: &ClusterEvent) -> Option<Place> {
    let object = &event.involved_object;
    Some(Place { namespace: object.namespace.clone()?, pod: object.name.clone()? })
}

/// One event of a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Happening {
    pub(super) at: Timestamp,
    pub(super) reason: String,
    pub(super) message: String,
    /// Which of its containers it is about.
    pub(super) container: Option<String>,
}

impl Happening {
    /// The same, whenever it was.
    fn says(&self, other: &Self) -> bool {
        self.reason == other.reason
            && self.message == other.message
            && self.container == other.container
    }
}

#[derive(Debug, Default)]
pub(super) struct Happenings {
    pods: HashMap<Place, Vec<Happening>>,
}

impl Happenings {
    /// Whether it is news.
    pub(super) fn hear(&mut self, place: &Place, event: ClusterEvent) -> bool {
        let container = event
            .involved_object
            .field_path
            .as_deref()
            .and_then(|it| it.split_once('{'))
            .map(|(_, name)| name.trim_end_matches('}').to_owned());
        let at = event.last_timestamp.or(event.first_timestamp).map(|it| it.0);
        let at = at.or(event.event_time.map(|it| it.0)).unwrap_or(Timestamp::UNIX_EPOCH);
        let happening = Happening {
            at,
            reason: event.reason.unwrap_or_default(),
            message: event.message.unwrap_or_default(),
            container,
        };
        let of_pod = self.pods.entry(place.clone()).or_default();
        // What is told again and again, as that there is no room, is no news.
        let again = of_pod.last().is_some_and(|it| it.says(&happening));
        let is_news = of_pod.len() < MAX && !again;
        if is_news {
            of_pod.push(happening);
        }
        is_news
    }

    pub(super) fn of(&self, place: &Place) -> Vec<Happening> {
        self.pods.get(place).cloned().unwrap_or_default()
    }

    pub(super) fn forget(&mut self, place: &Place) {
        self.pods.remove(place);
    }
}
