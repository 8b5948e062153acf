//! Who calls: tokens from request headers, looked up by their SHA-256.

mod admin_token;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::http::{HeaderMap, HeaderValue, header};
use base64::Engine as _;
use sha2::{Digest, Sha256};

use crate::clock::{Clock as _, SystemClock};
use crate::store::{self, NewToken, Principal, Store};

pub use admin_token::{AdminToken, TokenFileError};

/// Whether tokens are asked for.
#[derive(Debug, Clone)]
pub enum Mode {
    /// Everybody may do everything. Only for a service that listens on the loopback alone.
    Off,
    On {
        /// Where a person finds a token, for the answer to those who have none.
        hint: String,
    },
}

/// Why there is no principal.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("no token was given: send \"Authorization: Bearer <token>\"; {hint}")]
    Missing { hint: String },
    #[error("the token is not valid, or not any more; {hint}")]
    Invalid { hint: String },
    #[error(transparent)]
    Store(#[from] store::Error),
}

impl Error {
    /// The value of `WWW-Authenticate`. Not Basic, though it is taken: browsers would ask for a password.
    pub fn challenge(&self) -> HeaderValue {
        match self {
            Self::Missing { .. } | Self::Store(_) => {
                HeaderValue::from_static("Bearer realm=\"supercargo\"")
            }
            Self::Invalid { .. } => {
                HeaderValue::from_static("Bearer realm=\"supercargo\", error=\"invalid_token\"")
            }
        }
    }
}

/// Tells who sent a request. Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct Authenticator {
    store: Store,
    mode: Arc<Mode>,
    cache: Arc<Mutex<Cache>>,
}

impl fmt::Debug for Authenticator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authenticator").field("mode", &self.mode).finish_non_exhaustive()
    }
}

impl Authenticator {
    pub fn new(store: Store, mode: Mode) -> Self {
        Self { store, mode: Arc::new(mode), cache: Arc::default() }
    }

    pub fn is_on(&self) -> bool {
        matches!(*self.mode, Mode::On { .. })
    }

    /// The principal of the token in the headers.
    pub async fn authenticate(&self, headers: &HeaderMap) -> Result<Principal, Error> {
        let hint = match &*self.mode {
            Mode::Off => {
                return Ok(Principal {
                    token: None,
                    name: "anonymous".to_owned(),
                    expires_at: None,
                });
            }
            Mode::On { hint } => hint,
        };
        let Some(token) = token_of(headers) else {
            return Err(Error::Missing { hint: hint.clone() });
        };
        let sha256 = hash(token.as_bytes());
        let now = Instant::now();
        let cached = self.cache().get(&sha256, now);
        let valid = |it: &Principal| it.expires_at.is_none_or(|at| SystemClock.now() < at);
        if let Some(principal) = cached.filter(valid) {
            return Ok(principal);
        }
        match self.store.find_token(&sha256).await? {
            Some(principal) => {
                self.cache().insert(sha256, principal.clone(), now);
                Ok(principal)
            }
            None => Err(Error::Invalid { hint: hint.clone() }),
        }
    }

    /// Forgets what was looked up, so that a token that was revoked here does not work on.
    pub fn forget(&self) {
        self.cache().entries.clear();
    }

    /// Whether the token in the headers was valid some time ago, if one is asked for.
    pub fn was_seen(&self, headers: &HeaderMap) -> bool {
        !self.is_on()
            || token_of(headers).is_some_and(|it| self.cache().knows(&hash(it.as_bytes())))
    }

    fn cache(&self) -> std::sync::MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A new token: 256 random bits, with a prefix by which scanners of leaked secrets know it. And what the store
/// keeps of it.
pub fn new_token(name: &str) -> Result<(String, NewToken), String> {
    let secret = new_secret()?;
    let token = NewToken { name: name.to_owned(), sha256: hash(secret.as_bytes()) };
    Ok((secret, token))
}

fn new_secret() -> Result<String, String> {
    let mut key = [0; 32];
    getrandom::fill(&mut key).map_err(|it| it.to_string())?;
    Ok(format!("sc_{}", base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(key)))
}

fn hash(token: &[u8]) -> [u8; 32] {
    Sha256::digest(token).into()
}

/// Bearer, Basic with the token as the password, or `X-API-Key`.
fn token_of(headers: &HeaderMap) -> Option<String> {
    let authorization = headers.get(header::AUTHORIZATION).and_then(|it| it.to_str().ok());
    let given = authorization.and_then(|it| it.split_once(' ')).and_then(|(scheme, value)| {
        let value = value.trim();
        match scheme.to_ascii_lowercase().as_str() {
            "bearer" => Some(value.to_owned()),
            "basic" => basic_password(value),
            _ => None,
        }
    });
    let key = || headers.get("x-api-key").and_then(|it| it.to_str().ok()).map(str::to_owned);
    given.or_else(key).filter(|it| !it.is_empty())
}

fn basic_password(value: &str) -> Option<String> {
    let bytes = base64::engine::general_purpose::STANDARD.decode(value).ok()?;
    let text = String::from_utf8(bytes).ok()?;
    text.split_once(':').map(|(_, password)| password.to_owned())
}

/// Tokens that were valid a moment ago.
#[derive(Default)]
struct Cache {
    entries: HashMap<[u8; 32], (Principal, Instant)>,
}

/// A revoked token works for so long.
const CACHED: Duration = Duration::from_secs(10);
const CACHED_TOKENS: usize = 1_000;

impl Cache {
    fn get(&self, sha256: &[u8; 32], now: Instant) -> Option<Principal> {
        let (principal, since) = self.entries.get(sha256)?;
        (now.saturating_duration_since(*since) < CACHED).then(|| principal.clone())
    }

    fn knows(&self, sha256: &[u8; 32]) -> bool {
        self.entries.contains_key(sha256)
    }

    fn insert(&mut self, sha256: [u8; 32], principal: Principal, now: Instant) {
        if self.entries.len() >= CACHED_TOKENS {
            self.entries.retain(|_, (_, since)| now.saturating_duration_since(*since) < CACHED);
        }
        if self.entries.len() >= CACHED_TOKENS {
            self.entries.clear();
        }
        self.entries.insert(sha256, (principal, now));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    #[test]
    fn a_token_is_found_wherever_clients_put_it() {
        for (given, expected) in [
            (&[("authorization", "Bearer abc")][..], Some("abc")),
            (&[("authorization", "bearer  abc ")], Some("abc")),
            (&[("authorization", "Basic eDphOmI=")], Some("a:b")),
            (&[("x-api-key", "abc")], Some("abc")),
            (&[("authorization", "Digest x"), ("x-api-key", "abc")], Some("abc")),
            (&[("authorization", "Bearer ")], None),
            (&[("authorization", "Basic !")], None),
            (&[], None),
        ] {
            assert_eq!(token_of(&headers(given)).as_deref(), expected, "{given:?}");
        }
    }

    #[test]
    fn a_cached_token_expires_and_the_cache_is_bounded() {
        let principal = || Principal { token: None, name: "x".to_owned(), expires_at: None };
        let mut cache = Cache::default();
        let start = Instant::now();
        cache.insert([1; 32], principal(), start);
        assert!(cache.get(&[1; 32], start + Duration::from_secs(9)).is_some());
        assert!(cache.get(&[1; 32], start + CACHED).is_none());
        for n in 0..=CACHED_TOKENS {
            cache.insert(hash(&n.to_be_bytes()), principal(), start);
        }
        assert!(cache.entries.len() <= CACHED_TOKENS);
    }
}
