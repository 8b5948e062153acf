//! The client of the service's own API, as the commands use it.

mod backoff;
mod endpoint;
mod error;
mod follow;
mod lines;
mod position;
mod task;
mod wait;

use std::time::Duration;

use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use reqwest::{Method, RequestBuilder, Response, StatusCode, Url};
use serde_json::Value;

use endpoint::{Endpoint, UrlFrom, is_loopback};
use error::root_cause;

pub(crate) use backoff::Backoff;
pub(crate) use endpoint::Options;
pub(crate) use error::Error;
pub(crate) use follow::{Chunk, Follower, Selection};
pub(crate) use lines::Stream;
pub(crate) use task::{State, Task, seconds};
pub(crate) use wait::{PATIENCE, wait_until_terminal};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A request that neither waits nor streams.
pub(crate) const REQUEST_TIMEOUT: Duration = Duration::from_mins(1);

#[derive(Debug, Clone)]
pub(crate) struct Client {
    http: reqwest::Client,
    options: Options,
    endpoint: Endpoint,
}

impl Client {
    pub(crate) fn new(options: &Options) -> Result<Self, Error> {
        let endpoint = Endpoint::find(options)?;
        Ok(Self { http: build(&endpoint)?, options: options.clone(), endpoint })
    }

    /// Its address, without what may be secret in it.
    pub(crate) fn url(&self) -> String {
        self.endpoint.shown()
    }

    /// Looks again for the service: after a restart it may listen elsewhere.
    pub(crate) fn find_again(&mut self) {
        if self.endpoint.url_from == UrlFrom::Named {
            return;
        }
        // A service that is down has no file: what answers at the default address is another one.
        if let Ok(endpoint) = Endpoint::find(&self.options)
            && endpoint.url_from == UrlFrom::ServiceFile
            && let Ok(http) = build(&endpoint)
        {
            self.http = http;
            self.endpoint = endpoint;
        }
    }

    /// A request to a path below the API's root, with the token.
    pub(crate) fn request(
        &self,
        method: Method,
        path: &[&str],
        query: &[(&str, &str)],
    ) -> RequestBuilder {
        let mut api = vec!["api", "v1"];
        api.extend(path);
        self.request_root(method, &api, query)
    }

    /// A request to a path of the service, with the token.
    pub(crate) fn request_root(
        &self,
        method: Method,
        path: &[&str],
        query: &[(&str, &str)],
    ) -> RequestBuilder {
        self.http.request(method, url_of(&self.endpoint.url, path, query))
    }

    /// Sends, and takes any answer.
    pub(crate) async fn send(&self, request: RequestBuilder) -> Result<Response, Error> {
        request.send().await.map_err(|error| Error::transport(&self.endpoint, &error))
    }

    /// Sends, and takes the answers that are no refusal.
    pub(crate) async fn accepted(&self, request: RequestBuilder) -> Result<Response, Error> {
        let response = self.send(request).await?;
        if response.status().is_success() {
            Ok(response)
        } else {
            Err(self.refusal(response).await)
        }
    }

    pub(crate) async fn json(&self, request: RequestBuilder) -> Result<Value, Error> {
        let response = self.accepted(request.timeout(REQUEST_TIMEOUT)).await?;
        let body = self.body(response).await?;
        serde_json::from_slice(&body).map_err(|error| self.unexpected(&error))
    }

    pub(crate) async fn task(&self, id: &str) -> Result<Task, Error> {
        let task = self.json(self.request(Method::GET, &["tasks", id], &[])).await?;
        self.read_task(task)
    }

    pub(crate) fn read_task(&self, document: Value) -> Result<Task, Error> {
        Task::read(document).map_err(|error| self.unexpected(&error))
    }

    pub(crate) async fn body(&self, response: Response) -> Result<Vec<u8>, Error> {
        match response.bytes().await {
            Ok(body) => Ok(body.into()),
            Err(error) => Err(self.lost(&error)),
        }
    }

    /// The refusal that an answer is.
    pub(crate) async fn refusal(&self, response: Response) -> Error {
        let status = response.status();
        if status.is_redirection() || status == StatusCode::SWITCHING_PROTOCOLS {
            return self.unexpected(&format!("the answer was {status}"));
        }
        match self.body(response).await {
            Ok(body) => Error::refusal(&self.endpoint, status, &body),
            Err(error) => error,
        }
    }

    pub(crate) fn lost(&self, error: &reqwest::Error) -> Error {
        Error::Network { url: self.endpoint.shown(), reason: root_cause(error) }
    }

    pub(crate) fn unexpected(&self, reason: &impl ToString) -> Error {
        Error::Unexpected { url: self.endpoint.shown(), reason: reason.to_string() }
    }
}

fn build(endpoint: &Endpoint) -> Result<reqwest::Client, Error> {
    let mut http = reqwest::Client::builder()
        .user_agent(concat!("supercargo/", env!("CARGO_PKG_VERSION")))
        .connect_timeout(CONNECT_TIMEOUT)
        // A followed log may be silent for hours, and a peer that is gone must still be noticed.
        .tcp_keepalive(Duration::from_secs(15))
        // A wait that is not over answers with a redirect to itself: ours to repeat, or to give up.
        .redirect(reqwest::redirect::Policy::none())
        .default_headers(headers(endpoint)?);
    if endpoint.url.scheme() == "http" {
        // Reading the certificates of the system takes longer than the rest of a command.
        http = http.tls_certs_only([]);
    }
    if is_loopback(&endpoint.url) {
        http = http.no_proxy();
    }
    http.build().map_err(|error| Error::Usage(format!("can't set up HTTP: {}", root_cause(&error))))
}

fn headers(endpoint: &Endpoint) -> Result<HeaderMap, Error> {
    let mut headers = HeaderMap::new();
    if let Some(token) = &endpoint.token {
        let mut header = HeaderValue::try_from(format!("Bearer {}", token.expose()))
            .map_err(|_| Error::Usage("the token holds characters that no token has".to_owned()))?;
        header.set_sensitive(true);
        headers.insert(AUTHORIZATION, header);
    }
    Ok(headers)
}

/// Escapes each part, so that `key:a/b` stays one of them.
fn url_of(base: &Url, path: &[&str], query: &[(&str, &str)]) -> Url {
    let mut url = base.clone();
    if let Ok(mut parts) = url.path_segments_mut() {
        parts.pop_if_empty().extend(path);
    }
    if !query.is_empty() {
        url.query_pairs_mut().extend_pairs(query);
    }
    url
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_a_path_are_escaped_and_the_base_may_have_a_path() {
        for (base, url) in [
            ("http://h:1", "http://h:1/api/tasks/key:a%2Fb%20c?wait=50s&label=k%3Dv"),
            ("http://h:1/", "http://h:1/api/tasks/key:a%2Fb%20c?wait=50s&label=k%3Dv"),
            ("http://h/base/", "http://h/base/api/tasks/key:a%2Fb%20c?wait=50s&label=k%3Dv"),
        ] {
            let path = ["api", "tasks", "key:a/b c"];
            let made =
                url_of(&Url::parse(base).unwrap(), &path, &[("wait", "50s"), ("label", "k=v")]);
            assert_eq!(made.as_str(), url);
        }
    }
}
