//! Following a change feed.

use std::io::{self, Write};
use std::time::Duration;

use http_body_util::BodyExt;
use serde_json::Value;

use super::client::{Ask, segment};
use super::commands::Session;
use super::failure::Failure;
use super::table::{bare, items, moment, short, text};

/// How long a watch waits before it asks a daemon again that went away.
const RETRY_AFTER: Duration = Duration::from_millis(500);
/// How often it asks in a row.
const RETRIES_MAX: u32 = 120;

impl Session {
    /// Prints changes until interrupted, and goes on where it was when the daemon comes back.
    pub(super) async fn watch(
        &self,
        space: &str,
        collection: Option<String>,
        from: Option<String>,
        conflicts: bool,
    ) -> Result<(), Failure> {
        let space = self.space(space).await?;
        let path = if conflicts { format!("{space}/conflicts/events") } else { format!("{space}/changes") };
        let path = match collection {
            Some(collection) => format!("{path}?collection={}", segment(&collection)),
            None => path,
        };
        let (mut last, mut retries) = (from, 0);
        loop {
            let ask = Ask::get(path.clone()).header("last-event-id", last.clone());
            match self.client.send(ask).await {
                Ok(response) => {
                    retries = 0;
                    if !self.read(response.into_body(), &mut last).await? {
                        return Ok(());
                    }
                }
                // The first time somebody may have mistaken the address; later the daemon is restarting.
                Err(error @ Failure::Unreachable(_)) if last.is_none() || retries >= RETRIES_MAX => {
                    return Err(error);
                }
                Err(Failure::Unreachable(_)) => retries += 1,
                Err(error) => return Err(error),
            }
            tokio::time::sleep(RETRY_AFTER).await;
        }
    }

    /// Prints the events of one connection. `false` when nobody reads them any more.
    async fn read(
        &self,
        mut body: hyper::body::Incoming,
        last: &mut Option<String>,
    ) -> Result<bool, Failure> {
        let (mut buffer, mut event) = (Vec::new(), Event::default());
        while let Some(frame) = body.frame().await {
            let Ok(frame) = frame else { return Ok(true) };
            let Ok(data) = frame.into_data() else { continue };
            buffer.extend_from_slice(&data);
            while let Some(end) = buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = buffer.drain(..=end).collect();
                let line = String::from_utf8_lossy(&line);
                if !event.take(line.trim_end_matches(['\n', '\r'])) {
                    continue;
                }
                let whole = std::mem::take(&mut event);
                if !whole.id.is_empty() {
                    *last = Some(whole.id.clone());
                }
                if whole.name == "problem" {
                    let body: Value = serde_json::from_str(&whole.data).unwrap_or_default();
                    return Err(Failure::NotFound(text(&body, "detail")));
                }
                match self.print(&whole) {
                    Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(false),
                    other => other.map_err(Failure::other)?,
                }
            }
        }
        Ok(true)
    }

    fn print(&self, event: &Event) -> io::Result<()> {
        if event.name == "open" {
            return Ok(());
        }
        let mut out = io::stdout().lock();
        let body: Value = serde_json::from_str(&event.data).unwrap_or_default();
        if self.printer.json {
            let line = serde_json::json!({"event": event.name, "token": event.id, "data": body});
            writeln!(out, "{line}")?;
            return out.flush();
        }
        if event.name != "change" {
            writeln!(out, "{}: {body}", event.name)?;
            return out.flush();
        }
        let by = body["region"].as_str().map_or_else(|| short(&text(&body, "author")), str::to_owned);
        for object in items(&body, "changes") {
            for did in items(object, "did") {
                let place = format!(
                    "{} {}/{}",
                    text(object, "kind"),
                    text(object, "collection"),
                    text(object, "key")
                );
                let rest = did
                    .as_object()
                    .into_iter()
                    .flatten()
                    .filter(|(name, _)| !matches!(name.as_str(), "op" | "replaced"));
                let rest = rest.map(|(_, value)| bare(value)).collect::<Vec<_>>().join(" ");
                let when = moment(body["written_ms"].as_u64().unwrap_or(0));
                writeln!(out, "{when}  {by}  {place}  {} {rest}", text(did, "op"))?;
            }
        }
        out.flush()
    }
}

/// A server-sent event that is being read.
#[derive(Default)]
struct Event {
    name: String,
    id: String,
    data: String,
}

impl Event {
    /// Takes a line; whether the event is whole now.
    fn take(&mut self, line: &str) -> bool {
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "event" => self.name = value.to_owned(),
            "id" => self.id = value.to_owned(),
            "data" => self.data.push_str(value),
            // An empty line ends an event; comments keep the connection alive.
            "" if line.is_empty() => return !self.name.is_empty() || !self.data.is_empty(),
            _ => {}
        }
        false
    }
}
