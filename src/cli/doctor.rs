//! `supercargo doctor`: says whether an installation is healthy, and what to do where it is not.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use super::client::{self, Client};
use super::exit::Exit;
use super::format::{self, Format, FormatArgs, printable};
use super::out;
use super::service_args::ServiceArgs;
use crate::app::doctor::{self, Api, Check, Readiness, Status, TokenState};
use crate::config::Config;

/// Of each request to the service.
const TIMEOUT: Duration = Duration::from_secs(5);

#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The same as --output json
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    format: FormatArgs,

    #[command(flatten)]
    settings: ServiceArgs,
}

pub(crate) async fn run(options: &client::Options, args: &Args) -> anyhow::Result<Exit> {
    let config = args.settings.load(options)?;
    let checks = Box::pin(doctor::examine(&config, ask(options, &config))).await;
    let worst = checks.iter().map(|it| it.status).max().unwrap_or(Status::Ok);
    if args.json || args.format.output == Format::Json {
        format::json(&json!({"status": worst, "checks": checks}))?;
    } else {
        out::text(table(&checks))?;
    }
    Ok(if worst == Status::Fail { Exit::Failed } else { Exit::Ok })
}

fn table(checks: &[Check]) -> String {
    let width = checks.iter().map(|it| it.check.chars().count()).max().unwrap_or(0);
    let mut text = String::new();
    for Check { check, status, found, fix } in checks {
        let status = status.as_str();
        text.push_str(&format!("{status:<4}  {check:<width$}  {}\n", printable(found)));
        if let Some(fix) = fix {
            text.push_str(&format!("      {:<width$}  -> {}\n", "", printable(fix)));
        }
    }
    text
}

/// What the service answers that runs with this data directory.
async fn ask(options: &client::Options, config: &Config) -> Api {
    let options = client::Options { data_dir: Some(config.data_dir.clone()), ..options.clone() };
    // A file that somebody named is looked for nowhere else.
    let options = match (&options.token, &config.auth.admin_token_file) {
        (None, Some(file)) => {
            let token = std::fs::read_to_string(file).ok().map(|it| it.as_str().into());
            client::Options { token, ..options }
        }
        _ => options,
    };
    let client = match Client::new(&options) {
        Ok(client) => client,
        Err(client::Error::NoServiceFile(_)) => return Api::NoAddress,
        Err(error) => return Api::Silent { url: String::new(), why: error.to_string() },
    };
    let url = client.url();
    let request = client.request_root(Method::GET, &["readyz"], &[]).timeout(TIMEOUT);
    let (readiness, roles) = match client.send(request).await {
        Err(error) => return Api::Silent { url, why: reason(error) },
        Ok(response) if response.status().is_success() => match client.body(response).await {
            Ok(body) => read(&serde_json::from_slice(&body).unwrap_or_default()),
            Err(error) => return Api::Silent { url, why: reason(error) },
        },
        Ok(response) => {
            (Readiness::NotReady(client.refusal(response).await.to_string()), Vec::new())
        }
    };
    let token = if roles.iter().any(|it| it == "api") {
        try_token(&client).await
    } else {
        TokenState::NoApi
    };
    Api::Answers { url, readiness, token }
}

/// What is wrong, without the advice that goes with it elsewhere.
fn reason(error: client::Error) -> String {
    match error {
        client::Error::NotRunning { reason, .. } | client::Error::Network { reason, .. } => reason,
        other => other.to_string(),
    }
}

fn read(body: &Value) -> (Readiness, Vec<String>) {
    let roles = body["roles"].as_array().into_iter().flatten();
    let roles = roles.filter_map(|it| it.as_str().map(str::to_owned)).collect();
    let away = body["targets"].as_object().into_iter().flatten();
    let away: Vec<String> =
        away.filter(|(_, it)| it["ready"] != true).map(|(name, _)| name.clone()).collect();
    match body["status"].as_str() {
        Some("ok") => (Readiness::Ready, roles),
        Some("degraded") if away.is_empty() => {
            (Readiness::Degraded(vec!["any target".to_owned()]), roles)
        }
        Some("degraded") => (Readiness::Degraded(away), roles),
        _ => (Readiness::NotReady("it does not answer as Supercargo does".to_owned()), roles),
    }
}

async fn try_token(client: &Client) -> TokenState {
    let request = client.request(Method::GET, &["tasks"], &[("limit", "1")]).timeout(TIMEOUT);
    match client.accepted(request).await {
        Ok(_) => TokenState::Works,
        Err(error) => TokenState::Refused(reason(error)),
    }
}
