//! The commands that ask a daemon.

use std::io::Read;

use hyper::Method;
use serde_json::{Value, json};

use super::args::{ChoiceArgs, Command, Ensure, ObjectArgs, WithinArgs};
use super::client::{Ask, Client, segment};
use super::failure::Failure;
use super::table::{Printer, Table, bare, items, moment, short, text};

/// A command on its way to a daemon.
pub(crate) struct Session {
    pub(crate) client: Client,
    pub(crate) printer: Printer,
}

type Done = Result<(), Failure>;

fn printed(result: std::io::Result<()>) -> Done {
    match result {
        // Whoever reads has read enough.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        other => other.map_err(Failure::other),
    }
}

/// JSON on the command line; what is none is a string.
fn parse_value(given: &str) -> Value {
    serde_json::from_str(given).unwrap_or_else(|_| Value::String(given.to_owned()))
}

/// The argument, or standard input for `-`.
fn argument(given: &str) -> Result<String, Failure> {
    if given != "-" {
        return Ok(given.to_owned());
    }
    let mut read = String::new();
    std::io::stdin()
        .read_to_string(&mut read)
        .map_err(|error| Failure::other(format!("standard input: {error}")))?;
    Ok(read)
}

fn query(pairs: &[(&str, Option<String>)]) -> String {
    let given =
        pairs.iter().filter_map(|(name, value)| Some(format!("{name}={}", segment(value.as_deref()?))));
    let joined = given.collect::<Vec<_>>().join("&");
    if joined.is_empty() { String::new() } else { format!("?{joined}") }
}

impl Ensure {
    fn on<'a>(&self, ask: Ask<'a>) -> Ask<'a> {
        ask.header("comity-durability", self.durability.clone())
            .header("comity-token", self.after.clone())
            .header("comity-wait", self.wait_ms.map(|ms| ms.to_string()))
            .header("idempotency-key", self.idempotency_key.clone())
    }
}

impl Session {
    /// Does what was asked.
    ///
    /// # Errors
    /// [`Failure`].
    pub(crate) async fn run(&self, command: Command) -> Done {
        match command {
            Command::Spaces { create } => self.spaces(create).await,
            Command::Invite { space, role } => self.invite(&space, &role).await,
            Command::Join { ticket } => self.join(&argument(&ticket)?).await,
            Command::Grant { space, replica, role } => {
                let body = json!({"role": role});
                let path = format!("{}/members/{}", self.space(&space).await?, segment(&replica));
                self.silent(Ask::new(Method::PUT, path, &body), &format!("{} is {role} now", short(&replica)))
                    .await
            }
            Command::Revoke { space, replica } => {
                let path = format!("{}/members/{}", self.space(&space).await?, segment(&replica));
                self.silent(Ask::delete(path), &format!("{} is no member any more", short(&replica))).await
            }
            Command::Leave { space, delete } => self.leave(&space, delete).await,
            Command::Members { space } => self.members(&space).await,
            Command::List { space, kind, collection, prefix, after, limit } => {
                let pages =
                    [("prefix", prefix), ("after", after), ("limit", limit.map(|limit| limit.to_string()))];
                self.list(&space, kind, collection, &query(&pages)).await
            }
            Command::Get { object, pointer, within: WithinArgs { path, within }, plain, at } => {
                let mut pairs =
                    vec![("pointer", pointer), ("kind", within), ("form", plain.then(|| "plain".to_owned()))];
                pairs.extend(path.into_iter().map(|key| ("path", Some(key))));
                let path = format!("{}{}", self.object(&object).await?, query(&pairs));
                let body = self.whole(path, at).await?;
                printed(self.printer.lines(&body, shown))
            }
            Command::Put { object, value, pointer, within, ensure } => {
                self.put((&object, &within), &value, pointer, &ensure).await
            }
            Command::Add { object, value, within, ensure } => {
                self.add((&object, &within), &value, &ensure).await
            }
            Command::Edit { space, collection, key, merge, patch, ensure } => {
                self.edit((&space, &collection, &key), merge, patch, &ensure).await
            }
            Command::Rm { object, element, ensure } => self.rm(&object, element, &ensure).await,
            Command::Policy { space, collection, policy, ensure } => {
                self.policy(&space, &collection, policy, &ensure).await
            }
            Command::Watch { space, collection, from, conflicts } => {
                self.watch(&space, collection, from, conflicts).await
            }
            Command::Conflicts { space, after, limit } => self.conflicts(&space, after, limit).await,
            Command::Resolve { object, path, choice, seen, ensure } => {
                self.resolve(&object, path, (choice, seen), &ensure).await
            }
            Command::Journal { space, next, limit, restore: None, .. } => {
                self.journal(&space, next, limit).await
            }
            Command::Journal { space, restore: Some(dot), ensure, .. } => {
                self.restore(&space, &dot, &ensure).await
            }
            Command::Status => self.status().await,
            Command::Peers => self.peers().await,
            Command::Lag => self.lag().await,
            // Those that need no daemon were done before.
            _ => Ok(()),
        }
    }

    /// The path of a space that is named by its id, or by its name where no other has it.
    pub(super) async fn space(&self, named: &str) -> Result<String, Failure> {
        if crate::names::parse_space(named).is_some() {
            return Ok(format!("/v1/spaces/{named}"));
        }
        let (mut found, mut after) = (Vec::new(), None);
        loop {
            let page = query(&[("limit", Some("1000".to_owned())), ("after", after)]);
            let answer = self.client.ask(Ask::get(format!("/v1/spaces{page}"))).await?.body;
            let named = items(&answer, "spaces").iter().filter(|space| text(space, "name") == named);
            found.extend(named.map(|space| text(space, "id")));
            match answer["next"].as_str() {
                Some(next) => after = Some(next.to_owned()),
                None => break,
            }
        }
        match found.as_slice() {
            [id] => Ok(format!("/v1/spaces/{id}")),
            [] => Err(Failure::NotFound(format!(
                "there is no space {named:?}; `comity spaces` lists those that are here"
            ))),
            ids => Err(Failure::usage(format!(
                "{} spaces are named {named:?}: say which by its id: {}",
                ids.len(),
                ids.join(", ")
            ))),
        }
    }

    /// An object with all pages of what it holds.
    async fn whole(&self, path: String, at: Option<String>) -> Result<Value, Failure> {
        let ask = |path: String| Ask::get(path).header("comity-token", at.clone());
        let mut whole = self.client.ask(ask(path.clone())).await?.body;
        while let Some(next) = whole["next"].as_str() {
            let sign = if path.contains('?') { '&' } else { '?' };
            let page = format!("{path}{sign}limit=1000&after={}", segment(next));
            let mut page = self.client.ask(ask(page)).await?.body;
            for name in ["elements", "entries"] {
                let lists =
                    [&mut whole, &mut page].map(|body| body.get_mut(name).and_then(Value::as_array_mut));
                if let [Some(all), Some(more)] = lists {
                    all.append(more);
                }
            }
            whole["next"] = page["next"].take();
        }
        Ok(whole)
    }

    async fn object(&self, at: &ObjectArgs) -> Result<String, Failure> {
        let space = self.space(&at.space).await?;
        Ok(format!("{space}/{}/{}/{}", segment(&at.kind), segment(&at.collection), segment(&at.key)))
    }

    /// A request whose answer says nothing.
    async fn silent(&self, ask: Ask<'_>, said: &str) -> Done {
        self.client.send(ask).await?;
        printed(self.printer.line(&json!({"done": true}), |_| said.to_owned()))
    }

    async fn spaces(&self, create: Option<String>) -> Done {
        if let Some(name) = create {
            let answer =
                self.client.ask(Ask::new(Method::POST, "/v1/spaces", &json!({"name": name}))).await?;
            return printed(self.printer.line(&answer.body, |space| text(space, "id")));
        }
        let (mut all, mut after) = (Vec::new(), None);
        loop {
            let page = query(&[("limit", Some("1000".to_owned())), ("after", after)]);
            let answer = self.client.ask(Ask::get(format!("/v1/spaces{page}"))).await?.body;
            all.extend_from_slice(items(&answer, "spaces"));
            match answer["next"].as_str() {
                Some(next) => after = Some(next.to_owned()),
                None => break,
            }
        }
        printed(self.printer.show(&json!({"spaces": all}), |body| {
            let mut table = Table::new(&["ID", "NAME"])
                .or("there is no space yet: `comity spaces --create NAME`, or `comity join TICKET`");
            for space in items(body, "spaces") {
                table.row(vec![text(space, "id"), text(space, "name")]);
            }
            table
        }))
    }

    async fn invite(&self, space: &str, role: &str) -> Done {
        let path = format!("{}/invitations", self.space(space).await?);
        let answer = self.client.ask(Ask::new(Method::POST, path, &json!({"role": role}))).await?;
        printed(self.printer.line(&answer.body, |body| text(body, "ticket")))
    }

    async fn join(&self, ticket: &str) -> Done {
        let body = json!({"ticket": ticket.trim()});
        let answer = self.client.ask(Ask::new(Method::POST, "/v1/join", &body)).await?;
        printed(self.printer.line(&answer.body, |body| text(body, "id")))
    }

    async fn leave(&self, space: &str, delete: bool) -> Done {
        let path = self.space(space).await?;
        if delete {
            return self.silent(Ask::delete(path), "what was held of the space here is being deleted").await;
        }
        let ask =
            Ask { method: Method::POST, path: format!("{path}/leave"), headers: Vec::new(), body: None };
        self.silent(ask, "this replica takes no part any more").await
    }

    async fn members(&self, space: &str) -> Done {
        let path = format!("{}/members", self.space(space).await?);
        let answer = self.client.ask(Ask::get(path)).await?;
        printed(self.printer.show(&answer.body, |body| {
            let mut table = Table::new(&["REPLICA", "ROLE"]);
            for member in items(body, "members") {
                table.row(vec![text(member, "replica"), text(member, "role")]);
            }
            table
        }))
    }

    async fn list(&self, space: &str, kind: Option<String>, collection: Option<String>, page: &str) -> Done {
        let space = self.space(space).await?;
        let Some(kind) = kind else { return self.kinds(&space).await };
        let (path, name) = match collection {
            Some(collection) => {
                (format!("{space}/{}/{}{page}", segment(&kind), segment(&collection)), "keys")
            }
            None => (format!("{space}/{}{page}", segment(&kind)), "collections"),
        };
        let answer = self.client.ask(Ask::get(path)).await?;
        printed(self.printer.show(&answer.body, |body| {
            let mut table =
                Table::new(&[if name == "keys" { "KEY" } else { "COLLECTION" }]).or("nothing is there");
            for key in items(body, name) {
                table.row(vec![bare(key)]);
            }
            if let Some(next) = body["next"].as_str() {
                table.row(vec![format!("… more: --after {next}")]);
            }
            table
        }))
    }

    /// The collections of every kind.
    async fn kinds(&self, space: &str) -> Done {
        let mut all = serde_json::Map::new();
        for kind in comity::Kind::APPLICATION {
            let answer = self.client.ask(Ask::get(format!("{space}/{}?limit=1000", kind.name()))).await?.body;
            all.insert(kind.name().to_owned(), answer["collections"].clone());
        }
        printed(self.printer.show(&Value::Object(all), |body| {
            let mut table = Table::new(&["KIND", "COLLECTION"]).or("nothing is there");
            for (kind, collections) in body.as_object().into_iter().flatten() {
                for collection in collections.as_array().into_iter().flatten() {
                    table.row(vec![kind.clone(), bare(collection)]);
                }
            }
            table
        }))
    }

    /// Prints what a write came to; not as durable as was asked is a failure of its own.
    async fn write(&self, ask: Ask<'_>) -> Done {
        let answer = self.client.ask(ask).await?;
        let body = answer.body;
        printed(self.printer.line(&body, |body| text(body, "token")))?;
        if body["reached"] == json!(false) {
            let durability = &body["durability"];
            return Err(Failure::NotYet(format!(
                "the write is durable at the daemon and goes on spreading; {} of {} that {} needs have it so far",
                durability["counted"],
                durability["needed"],
                text(durability, "asked")
            )));
        }
        Ok(())
    }

    async fn put(
        &self,
        (at, within): (&ObjectArgs, &WithinArgs),
        given: &str,
        pointer: Option<String>,
        ensure: &Ensure,
    ) -> Done {
        let value = parse_value(&argument(given)?);
        if at.kind == "map" {
            let action = within.action(&writing(within.kind(), &value)?);
            return self.write(ensure.on(Ask::new(Method::POST, self.object(at).await?, &action))).await;
        }
        let path = format!("{}{}", self.object(at).await?, query(&[("pointer", pointer)]));
        let body = if at.kind == "document" { value } else { json!({"value": value}) };
        self.write(ensure.on(Ask::new(Method::PUT, path, &body))).await
    }

    async fn add(&self, (at, within): (&ObjectArgs, &WithinArgs), given: &str, ensure: &Ensure) -> Done {
        let action = match at.kind.as_str() {
            "map" => within.action(&adding(within.kind(), given)?),
            kind => adding(kind, given)?,
        };
        let path = self.object(at).await?;
        self.write(ensure.on(Ask::new(Method::POST, path, &action))).await
    }

    async fn rm(&self, at: &ObjectArgs, element: Option<String>, ensure: &Ensure) -> Done {
        let path = self.object(at).await?;
        let ask = match (element, at.kind.as_str()) {
            (None, _) => Ask::delete(path),
            (Some(key), "map") => {
                let path_in: Vec<&str> = key.split('/').collect();
                Ask::new(Method::POST, path, &json!({"op": "remove-key", "path": path_in}))
            }
            (Some(element), _) => {
                Ask::new(Method::POST, path, &json!({"op": "remove", "element": parse_value(&element)}))
            }
        };
        self.write(ensure.on(ask)).await
    }

    async fn edit(
        &self,
        (space, collection, key): (&str, &str, &str),
        merge: Option<String>,
        patch: Option<String>,
        ensure: &Ensure,
    ) -> Done {
        let at = ObjectArgs {
            space: space.to_owned(),
            kind: "document".to_owned(),
            collection: collection.to_owned(),
            key: key.to_owned(),
        };
        let path = self.object(&at).await?;
        let (kind, body) = match (merge, patch) {
            (Some(merge), _) => ("application/merge-patch+json", argument(&merge)?.into_bytes()),
            (None, Some(patch)) => ("application/json-patch+json", argument(&patch)?.into_bytes()),
            (None, None) => match self.edited(&path).await? {
                Some(body) => return self.write(ensure.on(Ask::new(Method::PUT, path, &body))).await,
                None => {
                    return printed(
                        self.printer.line(&json!({"changed": false}), |_| "nothing was changed".to_owned()),
                    );
                }
            },
        };
        let ask = Ask { method: Method::PATCH, path, headers: Vec::new(), body: Some((kind, body)) };
        self.write(ensure.on(ask)).await
    }

    /// Has a person edit a document in an editor. Only what differs is written, so others may go on meanwhile.
    async fn edited(&self, path: &str) -> Result<Option<Value>, Failure> {
        let before = match self.client.ask(Ask::get(path)).await {
            Ok(answer) => answer.body["value"].clone(),
            Err(Failure::NotFound(_)) => json!({}),
            Err(error) => return Err(error),
        };
        let failed = |error: &dyn std::fmt::Display| Failure::other(format!("editing: {error}"));
        let name = format!(
            "comity-{}-{}.json",
            std::process::id(),
            crate::names::hex(&crate::auth::fresh_bits::<8>())
        );
        let file = std::env::temp_dir().join(name);
        let text = serde_json::to_string_pretty(&before).map_err(|error| failed(&error))?;
        let mut options = std::fs::OpenOptions::new();
        std::os::unix::fs::OpenOptionsExt::mode(options.write(true).create_new(true), 0o600);
        let written =
            options.open(&file).and_then(|mut open| std::io::Write::write_all(&mut open, text.as_bytes()));
        written.map_err(|error| failed(&error))?;
        let editor =
            std::env::var("VISUAL").or_else(|_| std::env::var("EDITOR")).unwrap_or_else(|_| "vi".to_owned());
        // An editor's name may come with arguments, as in `code --wait`.
        let mut words = editor.split_whitespace();
        let status = std::process::Command::new(words.next().unwrap_or("vi")).args(words).arg(&file).status();
        let after = status.and_then(|status| match status.success() {
            true => std::fs::read_to_string(&file),
            false => Err(std::io::Error::other(format!("{editor} ended with {status}"))),
        });
        let parsed = after.map_err(|error| failed(&error)).and_then(|after| {
            serde_json::from_str::<Value>(&after).map_err(|error| {
                Failure::usage(format!("what was saved is no JSON: {error}; it is in {}", file.display()))
            })
        })?;
        let _ = std::fs::remove_file(&file);
        Ok(Some(parsed).filter(|parsed| *parsed != before))
    }

    async fn policy(&self, space: &str, collection: &str, policy: Option<String>, ensure: &Ensure) -> Done {
        let path = format!("{}/policies/{}", self.space(space).await?, segment(collection));
        match policy {
            Some(policy) => {
                self.write(ensure.on(Ask::new(Method::PUT, path, &json!({"policy": policy})))).await
            }
            None => {
                let answer = self.client.ask(Ask::get(path)).await?;
                printed(self.printer.line(&answer.body, |body| text(body, "policy")))
            }
        }
    }

    async fn conflicts(&self, space: &str, after: Option<String>, limit: Option<usize>) -> Done {
        let page = query(&[("after", after), ("limit", limit.map(|limit| limit.to_string()))]);
        let path = format!("{}/conflicts{page}", self.space(space).await?);
        let answer = self.client.ask(Ask::get(path)).await?;
        printed(self.printer.show(&answer.body, |body| {
            let mut table = Table::new(&["KIND", "COLLECTION", "KEY", "VALUE", "WRITTEN", "BY", "DOT"])
                .or("nothing is in conflict");
            for conflict in items(body, "conflicts") {
                let location = &conflict["location"];
                let place = || {
                    let key = std::iter::once(text(location, "key"))
                        .chain(items(location, "path").iter().map(bare));
                    let key = key.collect::<Vec<_>>().join(" › ");
                    vec![text(location, "kind"), text(location, "collection"), key]
                };
                for sibling in items(conflict, "siblings") {
                    let by = sibling["region"]
                        .as_str()
                        .map_or_else(|| short(&text(sibling, "author")), str::to_owned);
                    let written = moment(sibling["written_ms"].as_u64().unwrap_or(0));
                    let cells = vec![sibling["value"].to_string(), written, by, text(sibling, "dot")];
                    table.row([place(), cells].concat());
                }
                for kind in items(conflict, "kinds") {
                    let cells =
                        vec![format!("a {}", bare(kind)), String::new(), String::new(), String::new()];
                    table.row([place(), cells].concat());
                }
            }
            if let Some(next) = body["next"].as_str() {
                table.row(vec![format!("… more: --after {next}")]);
            }
            table
        }))
    }

    async fn resolve(
        &self,
        at: &ObjectArgs,
        path: Vec<String>,
        (choice, seen): (ChoiceArgs, Vec<String>),
        ensure: &Ensure,
    ) -> Done {
        let location = json!({"kind": at.kind, "collection": at.collection, "key": at.key, "path": path});
        let mut body =
            json!({"location": location, "seen": seen, "keep": choice.keep, "kind": choice.kind_kept});
        if let Some(value) = choice.value {
            body["value"] = parse_value(&argument(&value)?);
        }
        let path = format!("{}/conflicts/resolve", self.space(&at.space).await?);
        self.write(ensure.on(Ask::new(Method::POST, path, &body))).await
    }

    /// Writes what was set aside again, wherever it is in the journal.
    async fn restore(&self, space: &str, dot: &str, ensure: &Ensure) -> Done {
        let (space, mut after) = (self.space(space).await?, None);
        let location = loop {
            let page = query(&[("limit", Some("1000".to_owned())), ("after", after)]);
            let body = self.client.ask(Ask::get(format!("{space}/journal{page}"))).await?.body;
            let found = items(&body, "entries").iter().find(|entry| text(entry, "dot") == dot);
            match (found, body["next"].as_str()) {
                (Some(entry), _) => break entry["location"].clone(),
                (None, Some(next)) => after = Some(next.to_owned()),
                (None, None) => {
                    return Err(Failure::NotFound(format!("no entry of the journal has the dot {dot}")));
                }
            }
        };
        let body = json!({"location": location, "dot": dot});
        let ask = Ask::new(Method::POST, format!("{space}/journal/restore"), &body);
        self.write(ensure.on(ask)).await
    }

    async fn journal(&self, space: &str, after: Option<String>, limit: Option<usize>) -> Done {
        let space = self.space(space).await?;
        let page = query(&[("after", after), ("limit", limit.map(|limit| limit.to_string()))]);
        let answer = self.client.ask(Ask::get(format!("{space}/journal{page}"))).await?;
        printed(self.printer.show(&answer.body, |body| {
            let mut table = Table::new(&["SET ASIDE", "KIND", "COLLECTION", "KEY", "VALUE", "WHY", "DOT"])
                .or("nothing was set aside");
            for entry in items(body, "entries") {
                let location = &entry["location"];
                table.row(vec![
                    moment(entry["at_ms"].as_u64().unwrap_or(0)),
                    text(location, "kind"),
                    text(location, "collection"),
                    text(location, "key"),
                    entry["value"].to_string(),
                    text(entry, "reason"),
                    text(entry, "dot"),
                ]);
            }
            if let Some(next) = body["next"].as_str() {
                table.row(vec![format!("… more: --next {next}")]);
            }
            table
        }))
    }

    async fn status(&self) -> Done {
        let answer = self.client.ask(Ask::get("/v1/status")).await?;
        printed(self.printer.show(&answer.body, |body| {
            let mut table = Table::new(&["", ""]);
            for name in
                ["replica", "region", "version", "uptime_seconds", "ready", "waits_for", "spaces", "damage"]
            {
                let value = text(body, name);
                if !value.is_empty() {
                    table.row(vec![name.replace('_', " "), value]);
                }
            }
            table.row(vec!["peers".to_owned(), items(body, "peers").len().to_string()]);
            table
        }))
    }

    async fn peers(&self) -> Done {
        let answer = self.client.ask(Ask::get("/v1/peers")).await?;
        printed(self.printer.show(&answer.body, |body| {
            let mut table =
                Table::new(&["REPLICA", "SENT", "RECEIVED", "LOST"]).or("no replica is connected");
            for peer in items(body, "peers") {
                let count = |name: &str| text(peer, name);
                let lost = count("packets_lost");
                table.row(vec![count("replica"), count("udp_bytes_sent"), count("udp_bytes_received"), lost]);
            }
            table
        }))
    }

    async fn lag(&self) -> Done {
        let answer = self.client.ask(Ask::get("/v1/lag")).await?;
        printed(self.printer.show(&answer.body, |body| {
            let mut table = Table::new(&["SPACE", "WHO", "LACKS", "WAITING", "CATCHES UP", "WHY"])
                .or("nobody who is connected is behind");
            for space in items(body, "spaces") {
                let name = || text(space, "name");
                for lane in items(space, "here") {
                    let why = match (lane["frozen"].as_str(), lane["waits_for"].as_object()) {
                        (Some(frozen), _) => format!("frozen: {frozen}"),
                        (None, Some(on)) => {
                            format!("for entry {} of lane {}", on["entry"], bare(&on["lane"]))
                        }
                        (None, None) => String::new(),
                    };
                    let who = format!("this replica, of {}", short(&text(lane, "owner")));
                    let row =
                        vec![name(), who, text(lane, "lacks"), text(lane, "staged"), String::new(), why];
                    table.row(row);
                }
                for peer in items(space, "peers") {
                    let who = short(&text(peer, "replica"));
                    let soon = match peer["catch_up_ms"].as_u64() {
                        Some(ms) => format!("in {:.1} s", ms as f64 / 1e3),
                        None => "not known".to_owned(),
                    };
                    let old = match peer["behind"]["age_ms"].as_u64() {
                        Some(ms) => format!("the oldest is {:.1} s old", ms as f64 / 1e3),
                        None => String::new(),
                    };
                    table.row(vec![name(), who, text(peer, "lacks"), String::new(), soon, old]);
                }
            }
            table
        }))
    }
}

impl WithinArgs {
    fn kind(&self) -> &str {
        self.within.as_deref().unwrap_or("")
    }

    /// Something done to what the keys of a map lead to.
    fn action(&self, r#do: &Value) -> Value {
        json!({"op": "within", "path": self.path, "kind": self.within, "do": r#do})
    }
}

/// The operation that writes what is under a key of a map.
fn writing(kind: &str, value: &Value) -> Result<Value, Failure> {
    match (kind, value) {
        ("register", value) => Ok(json!({"op": "write", "value": value})),
        ("flag", Value::Bool(true)) => Ok(json!({"op": "enable"})),
        ("flag", Value::Bool(false)) => Ok(json!({"op": "disable"})),
        ("flag", _) => Err(Failure::usage("a flag is true or false")),
        _ => Err(Failure::usage(
            "within a map, registers and flags are written: say where with --path KEY, and what with --within register",
        )),
    }
}

/// The operation that adds to an object.
fn adding(kind: &str, given: &str) -> Result<Value, Failure> {
    let number = || {
        let number = given.parse::<i64>();
        number.map_err(|_| Failure::usage(format!("{given:?} is no whole number to add to a {kind}")))
    };
    match kind {
        "counter" => Ok(json!({"op": "add", "by": number()?})),
        "bounded-counter" => match number()? {
            by if by < 0 => Ok(json!({"op": "decrease", "by": by.unsigned_abs()})),
            by => Ok(json!({"op": "increase", "by": by})),
        },
        "" => Err(Failure::usage(
            "within a map, counters and sets are added to: say where with --path KEY, and what with --within counter",
        )),
        _ => Ok(json!({"op": "insert", "element": parse_value(&argument(given)?)})),
    }
}

/// An object for people, by lines.
fn shown(body: &Value) -> Vec<String> {
    if let Some(elements) = body["elements"].as_array() {
        return elements.iter().map(bare).collect();
    }
    if let Some(entries) = body["entries"].as_array() {
        return entries.iter().map(|entry| format!("{}: {}", bare(&entry["key"]), entry["holds"])).collect();
    }
    if body["state"] == json!("conflict") {
        let siblings = items(body, "siblings").iter();
        return siblings.map(|sibling| format!("{}  ({})", sibling["value"], text(sibling, "dot"))).collect();
    }
    match &body["value"] {
        value @ (Value::Object(_) | Value::Array(_)) => {
            vec![serde_json::to_string_pretty(value).unwrap_or_default()]
        }
        value => vec![bare(value)],
    }
}
