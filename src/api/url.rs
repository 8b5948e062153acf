//! The addresses that answers name.

use axum::http::Uri;

/// Where callers find the service. Without one, links are paths.
#[derive(Debug, Clone, Default)]
pub(super) struct PublicUrl {
    /// Without a slash at its end.
    whole: String,
    /// The path part of it.
    prefix: String,
    origin: Option<(String, String)>,
}

impl PublicUrl {
    pub(super) fn new(url: Option<&str>) -> Self {
        let Some(whole) = url.map(|it| it.trim_end_matches('/')).filter(|it| !it.is_empty()) else {
            return Self::default();
        };
        let uri: Uri = whole.parse().unwrap_or_default();
        let origin = uri.scheme_str().zip(uri.authority());
        Self {
            whole: whole.to_owned(),
            prefix: uri.path().trim_end_matches('/').to_owned(),
            origin: origin.map(|(scheme, host)| (scheme.to_owned(), host.as_str().to_lowercase())),
        }
    }

    /// A link for people and programs to keep.
    pub(super) fn link(&self, path: &str) -> String {
        format!("{}{path}", self.whole)
    }

    /// What goes into `Location`. Without a host: a client that is sent to another one leaves its token
    /// behind.
    pub(super) fn location(&self, path: &str) -> String {
        format!("{}{path}", self.prefix)
    }

    /// `("https", "host:port")`.
    pub(super) fn origin(&self) -> Option<(&str, &str)> {
        self.origin.as_ref().map(|(scheme, host)| (scheme.as_str(), host.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_location_keeps_the_prefix_and_drops_the_host() {
        let none = PublicUrl::new(None);
        assert_eq!((none.link("/a"), none.location("/a")), ("/a".to_owned(), "/a".to_owned()));
        let url = PublicUrl::new(Some("https://Example.org/cargo/"));
        assert_eq!(url.link("/a"), "https://Example.org/cargo/a");
        assert_eq!(url.location("/a"), "/cargo/a");
        assert_eq!(url.origin(), Some(("https", "example.org")));
        assert_eq!(PublicUrl::new(Some("http://x:1")).location("/a"), "/a");
    }
}
