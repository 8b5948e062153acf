//! How much callers may ask for: requests a second, failed authentications, tasks that wait.
//!
//! What is refused here was refused before anything was done or stored, and says when to come again.
//! Probes are never limited.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};

use super::problem::{Problem, ProblemKind};
use super::state::{App, Settings, Shared};
use crate::ids::TokenId;
use crate::measures;
use crate::store::{Principal, Store};

/// Who the other end of a connection is. The server puts it into every request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer(pub IpAddr);

pub(super) fn is_probe(path: &str) -> bool {
    matches!(path, "/livez" | "/readyz")
}

/// What shares a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Key {
    Token(TokenId),
    Address(IpAddr),
    /// A connection that has no address.
    Unknown,
}

impl Key {
    fn of(peer: Option<&Peer>) -> Self {
        match peer.map(|it| it.0.to_canonical()) {
            None => Self::Unknown,
            Some(it @ IpAddr::V4(_)) => Self::Address(it),
            // A customer of a network has 64 bits to choose from.
            Some(IpAddr::V6(it)) => {
                let network = it.to_bits() & !u128::from(u64::MAX);
                Self::Address(Ipv6Addr::from_bits(network).into())
            }
        }
    }
}

#[derive(Debug)]
pub(super) struct RateLimits {
    requests: Option<Buckets<Key>>,
    failures: Option<Buckets<Key>>,
}

impl RateLimits {
    pub(super) fn new(settings: &Settings) -> Self {
        let burst = match settings.rate_burst {
            0 => settings.rate_limit.saturating_mul(2),
            burst => burst,
        };
        let failures = settings.failed_auth_limit;
        Self {
            requests: Buckets::new(settings.rate_limit, burst),
            failures: Buckets::new(failures, failures.saturating_mul(5)),
        }
    }

    /// One more request of this caller.
    pub(super) fn request(&self, caller: &Principal, peer: Option<&Peer>) -> Result<(), Problem> {
        self.take_request(caller.token.map_or_else(|| Key::of(peer), Key::Token), "this token")
    }

    fn take_request(&self, key: Key, whose: &str) -> Result<(), Problem> {
        let Some(buckets) = &self.requests else { return Ok(()) };
        buckets.take(key, Instant::now()).map_err(|wait| {
            let whose = if matches!(key, Key::Token(_)) { whose } else { "this address" };
            let rate = buckets.rate;
            limited("requests", &format!("more than {rate} requests a second with {whose}"), wait)
        })
    }

    /// Whether one more token of this address that was never seen may be looked up.
    pub(super) fn may_try(&self, peer: Option<&Peer>) -> Result<(), Problem> {
        let Some(buckets) = &self.failures else { return Ok(()) };
        buckets.peek(Key::of(peer), Instant::now()).map_err(too_many_failures)
    }

    /// One more request without a valid token.
    pub(super) fn failure(&self, peer: Option<&Peer>) -> Result<(), Problem> {
        let Some(buckets) = &self.failures else { return Ok(()) };
        buckets.take(Key::of(peer), Instant::now()).map_err(too_many_failures)
    }
}

fn too_many_failures(wait: Duration) -> Problem {
    limited("failed_authentications", "too many requests of this address had no valid token", wait)
}

fn limited(which: &'static str, what: &str, wait: Duration) -> Problem {
    measures::limited(which);
    let after = Duration::from_secs(wait.as_secs() + 1);
    let detail = format!("{what}: again in {} s", after.as_secs());
    Problem::new(ProblemKind::RateLimited, detail).retry_after(after)
}

/// Holds the head of a request to its limit, and what nobody needs a token for to the rate of an address.
pub(super) async fn limit(State(app): State<App>, request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str);
    let path = request.uri().path();
    let checked = check_head(&app, &request).and_then(|()| {
        // Handlers below these ask for a token, and count by it.
        let counted = route.is_some_and(|it| it.starts_with("/api/") || it == "/metrics");
        if counted || is_probe(path) {
            return Ok(());
        }
        app.rates.take_request(Key::of(request.extensions().get()), "this address")
    });
    match checked {
        Ok(()) => next.run(request).await,
        Err(problem) => problem.into_response(),
    }
}

fn check_head(app: &Shared, request: &Request) -> Result<(), Problem> {
    let limit = app.settings.header_limit;
    let target = request.uri().path_and_query().map_or(0, |it| it.as_str().len());
    // As they stand on the wire: `name: value` and a line break.
    let fields = request.headers().iter();
    let size: usize = fields.map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    if target + size <= limit {
        return Ok(());
    }
    measures::limited("headers");
    let detail = format!(
        "the path and the headers have {} bytes, at most {limit} are taken: leave out cookies and the like, or \
         raise http.header_limit in the configuration",
        target + size
    );
    Err(Problem::new(ProblemKind::HeadersTooLarge, detail))
}

/// Token buckets: each key may do `burst` at once, and `rate` a second for ever.
#[derive(Debug)]
struct Buckets<K> {
    rate: u32,
    burst: u32,
    buckets: Mutex<HashMap<K, Bucket>>,
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    left: f64,
    at: Instant,
}

/// More callers than that, and those who are idle are forgotten; then everybody.
const KEYS: usize = 10_000;

impl<K: Eq + Hash> Buckets<K> {
    /// None: there is no limit.
    fn new(rate: u32, burst: u32) -> Option<Self> {
        (rate > 0).then(|| Self { rate, burst: burst.max(1), buckets: Mutex::default() })
    }

    /// The error is how long until there is one more.
    fn take(&self, key: K, now: Instant) -> Result<(), Duration> {
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.len() >= KEYS && !buckets.contains_key(&key) {
            buckets.retain(|_, it| self.left(it, now) < f64::from(self.burst));
            if buckets.len() >= KEYS {
                buckets.clear();
            }
        }
        let bucket = buckets.entry(key).or_insert(Bucket { left: f64::from(self.burst), at: now });
        *bucket = Bucket { left: self.left(bucket, now), at: now };
        self.check(bucket)?;
        bucket.left -= 1.0;
        Ok(())
    }

    fn peek(&self, key: K, now: Instant) -> Result<(), Duration> {
        let buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(bucket) = buckets.get(&key) else { return Ok(()) };
        self.check(&Bucket { left: self.left(bucket, now), at: now })
    }

    fn check(&self, bucket: &Bucket) -> Result<(), Duration> {
        if bucket.left < 1.0 {
            return Err(Duration::from_secs_f64((1.0 - bucket.left) / f64::from(self.rate)));
        }
        Ok(())
    }

    fn left(&self, bucket: &Bucket, now: Instant) -> f64 {
        let gained = now.saturating_duration_since(bucket.at).as_secs_f64() * f64::from(self.rate);
        (bucket.left + gained).min(f64::from(self.burst))
    }
}

/// Keeps the queue from growing without end. What it knows of the queue is up to a second old, and what other
/// processes accept meanwhile is not in it; what is attached to a task that there is counts as one more until
/// then. The limit is there so that a runaway caller does not fill the disk.
#[derive(Debug)]
pub(super) struct Admission {
    store: Store,
    /// 0: no limit.
    limit: u64,
    /// Held over the query: one asks, and nobody waits for that answer.
    asking: tokio::sync::Mutex<()>,
    known: Mutex<Known>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Known {
    queued: u64,
    accepted_since: u64,
    /// When to ask again.
    stale_at: Option<Instant>,
}

const FRESH: Duration = Duration::from_secs(1);
/// A question that takes long is asked seldom: at most so much of the time goes into it.
const SHARE: u32 = 20;

impl Admission {
    pub(super) fn new(store: Store, limit: u64) -> Self {
        Self { store, limit, asking: tokio::sync::Mutex::default(), known: Mutex::default() }
    }

    /// So many more.
    pub(super) async fn admit(&self, tasks: usize) -> Result<(), Problem> {
        if self.limit == 0 {
            return Ok(());
        }
        self.refresh().await;
        let mut known = self.known();
        let wanted = known.accepted_since + tasks as u64;
        if known.queued + wanted <= self.limit {
            known.accepted_since = wanted;
            return Ok(());
        }
        drop(known);
        measures::limited("queued_tasks");
        let detail = format!(
            "{} tasks wait already (limits.queued_tasks): nothing was stored; send it again later",
            self.limit
        );
        Err(Problem::new(ProblemKind::QueueFull, detail).retry_after(5 * FRESH))
    }

    async fn refresh(&self) {
        let is_stale = || self.known().stale_at.is_none_or(|it| Instant::now() >= it);
        if !is_stale() {
            return;
        }
        let Ok(_asking) = self.asking.try_lock() else { return };
        let asked = Instant::now();
        match self.store.queue_depth(self.limit).await {
            Ok(queued) => {
                let pause = FRESH.max(asked.elapsed() * SHARE);
                let stale_at = Some(Instant::now() + pause);
                *self.known() = Known { queued, accepted_since: 0, stale_at };
            }
            // The submit itself will say what is wrong.
            Err(error) => tracing::debug!(%error, "the length of the queue can't be read"),
        }
    }

    fn known(&self) -> std::sync::MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_gives_its_burst_and_then_its_rate() {
        let buckets = Buckets::new(10, 3).unwrap();
        let start = Instant::now();
        let after = |ms| start + Duration::from_millis(ms);
        for _ in 0..3 {
            assert_eq!(buckets.take("a", start), Ok(()));
        }
        let wait = buckets.take("a", start).unwrap_err();
        assert_eq!(wait, Duration::from_millis(100));
        assert_eq!(buckets.peek("a", start), Err(wait));
        assert_eq!(buckets.take("b", start), Ok(()));
        assert!(buckets.take("a", after(50)).is_err());
        assert_eq!(buckets.take("a", after(150)), Ok(()));
        assert!(buckets.take("a", after(150)).is_err());
        for _ in 0..3 {
            assert_eq!(buckets.take("a", after(10_000)), Ok(()));
        }
        assert!(buckets.take("a", after(10_000)).is_err());
        assert!(Buckets::<u8>::new(0, 5).is_none());
    }

    #[test]
    fn callers_are_forgotten_before_they_fill_the_memory() {
        let buckets = Buckets::new(1, 1).unwrap();
        let now = Instant::now();
        for n in 0..3 * KEYS {
            assert_eq!(buckets.take(n, now), Ok(()));
        }
        assert!(buckets.buckets.lock().unwrap().len() <= KEYS);
    }

    #[test]
    fn a_network_of_version_6_is_one_address() {
        let key = |text: &str| Key::of(Some(&Peer(text.parse().unwrap())));
        assert_eq!(key("2001:db8:1:2::1"), key("2001:db8:1:2:ffff::9"));
        assert_ne!(key("2001:db8:1:2::1"), key("2001:db8:1:3::1"));
        assert_eq!(key("::ffff:10.0.0.1"), key("10.0.0.1"));
        assert_ne!(key("10.0.0.1"), key("10.0.0.2"));
    }
}
