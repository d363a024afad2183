//! The table of routes: the router and the description of the API are both made of it.

use axum::routing::{get, post, put};
use utoipa::openapi::path::HttpMethod;

use super::openapi::{Doc, Route, answers as said};
use super::{action, document, feed, inbox, jobs, metrics, objects, overview, spaces, status};

const OBJECT: &str = "/v1/spaces/{space}/{kind}/{collection}/{key}";

/// Every route that needs a token, or a place on this machine.
pub(super) fn table() -> Vec<Route> {
    [daemon(), of_spaces(), members(), decisions(), of_objects(), documents()].into_iter().flatten().collect()
}

fn daemon() -> Vec<Route> {
    let job = || Doc::get("showJob", "A job").answers::<said::Job>(200, "The job");
    vec![
        Route::new(
            "/v1/status",
            get(status::status),
            vec![Doc::get("status", "The daemon in short").answers::<said::Status>(200, "The daemon")],
        ),
        Route::new(
            "/v1/peers",
            get(status::peers),
            vec![Doc::get("peers", "The connected replicas").answers::<said::Peers>(200, "The replicas")],
        ),
        Route::new(
            "/v1/lag",
            get(status::lag),
            vec![
                Doc::get("lag", "Who is behind whom, and what for")
                    .answers::<said::Lag>(200, "Spaces in which somebody is"),
            ],
        ),
        Route::new(
            "/v1/jobs",
            get(jobs::list).post(jobs::begin),
            vec![
                Doc::get("listJobs", "The jobs of late").answers::<said::Jobs>(200, "The jobs, oldest first"),
                Doc::post("beginJob", "Back up, verify or compact; one at a time")
                    .takes::<jobs::Work>()
                    .answers::<said::Job>(202, "Begun"),
            ],
        ),
        Route::new("/v1/jobs/{id}", get(jobs::show), vec![job()]),
        Route::new(
            "/metrics",
            get(metrics::metrics),
            vec![Doc::get("metrics", "Figures for Prometheus").answers_with(
                200,
                "text/plain",
                "The figures",
            )],
        ),
    ]
}

fn of_spaces() -> Vec<Route> {
    vec![
        Route::new(
            "/v1/spaces",
            get(spaces::list).post(spaces::create),
            vec![
                Doc::get("listSpaces", "The spaces held here")
                    .query("after", "The last id of the page before")
                    .limit()
                    .answers::<said::Spaces>(200, "A page of spaces"),
                Doc::post("createSpace", "Found a space")
                    .takes::<spaces::Founding>()
                    .answers::<said::Space>(201, "Founded"),
            ],
        ),
        Route::new(
            "/v1/join",
            post(spaces::join),
            vec![
                Doc::post("join", "Take part in the space that a ticket names")
                    .takes::<spaces::Joining>()
                    .answers::<said::Joined>(200, "Catching up goes on in the background"),
            ],
        ),
        Route::new(
            "/v1/spaces/{space}",
            get(spaces::show).delete(spaces::delete),
            vec![
                Doc::get("showSpace", "The report on a space").shows::<said::SpaceReport>("The report"),
                Doc::new(
                    HttpMethod::Delete,
                    "deleteSpace",
                    "Delete what is held of a space here, telling nobody",
                )
                .done(),
            ],
        ),
        Route::new(
            "/v1/spaces/{space}/overview",
            get(overview::show),
            vec![
                Doc::get("overview", "Where the members are, and how far behind they were lately")
                    .shows::<said::Overview>("Regions, and samples of the last minutes"),
            ],
        ),
        Route::new(
            "/v1/spaces/{space}/leave",
            post(spaces::leave),
            vec![Doc::post("leaveSpace", "Take no part in a space any more").done()],
        ),
        Route::new(
            "/v1/spaces/{space}/policies/{collection}",
            get(spaces::policy).put(spaces::set_policy),
            vec![
                Doc::get("policy", "How the registers of a collection are read")
                    .reads()
                    .shows::<said::Policy>("The policy"),
                Doc::new(
                    HttpMethod::Put,
                    "setPolicy",
                    "Set how the registers of a collection are read, everywhere",
                )
                .takes::<spaces::Setting>()
                .writes(),
            ],
        ),
        Route::feed(
            "/v1/spaces/{space}/changes",
            get(feed::changes),
            vec![
                Doc::get(
                    "changes",
                    "What is done in a space, as server-sent events that go on after any token",
                )
                .query("collection", "Changes of objects in this collection only")
                .query("kind", "Changes of one object, with collection and key")
                .query("key", "See kind")
                .query("token", "Go on after this; Last-Event-ID wins")
                .answers_with(200, "text/event-stream", "open, change, lagged and problem"),
            ],
        ),
    ]
}

fn members() -> Vec<Route> {
    vec![
        Route::new(
            "/v1/spaces/{space}/invitations",
            post(spaces::invite),
            vec![
                Doc::post("invite", "Make a ticket that lets one replica in")
                    .takes::<spaces::Inviting>()
                    .answers::<said::Ticket>(201, "Good once, for a day"),
            ],
        ),
        Route::new(
            "/v1/spaces/{space}/members",
            get(spaces::members),
            vec![Doc::get("members", "Who takes part").answers::<said::Members>(200, "The members")],
        ),
        Route::new(
            "/v1/spaces/{space}/members/{replica}",
            put(spaces::grant).delete(spaces::revoke),
            vec![
                Doc::new(HttpMethod::Put, "grant", "Make a replica a member, or give a member another role")
                    .takes::<spaces::Granting>()
                    .done(),
                Doc::new(
                    HttpMethod::Delete,
                    "revoke",
                    "Remove a member; its connections lose the space at once",
                )
                .done(),
            ],
        ),
    ]
}

fn decisions() -> Vec<Route> {
    vec![
        Route::new(
            "/v1/spaces/{space}/conflicts",
            get(inbox::conflicts),
            vec![
                Doc::get("conflicts", "What people have to decide")
                    .query("after", "What next said")
                    .limit()
                    .reads()
                    .shows::<said::Conflicts>("A page of the inbox"),
            ],
        ),
        Route::feed(
            "/v1/spaces/{space}/conflicts/events",
            get(feed::conflict_events),
            vec![
                Doc::get("conflictEvents", "What becomes of the inbox, as server-sent events")
                    .query("token", "Go on after this; Last-Event-ID wins")
                    .answers_with(
                        200,
                        "text/event-stream",
                        "open, conflict, settled, policy, lagged and problem",
                    ),
            ],
        ),
        Route::new(
            "/v1/spaces/{space}/conflicts/resolve",
            post(inbox::resolve),
            vec![
                Doc::post("resolve", "Decide a conflict as it was seen").takes::<inbox::Decision>().writes(),
            ],
        ),
        Route::new(
            "/v1/spaces/{space}/journal",
            get(inbox::journal),
            vec![
                Doc::get("journal", "What was set aside, oldest first")
                    .query("kind", "Of one object, with collection and key")
                    .query("collection", "See kind")
                    .query("key", "See kind")
                    .query("after", "What next said")
                    .limit()
                    .reads()
                    .shows::<said::Journal>("A page of the journal"),
            ],
        ),
        Route::new(
            "/v1/spaces/{space}/journal/restore",
            post(inbox::restore),
            vec![
                Doc::post("restore", "Write a value from the journal again")
                    .takes::<inbox::Restoring>()
                    .writes(),
            ],
        ),
    ]
}

fn of_objects() -> Vec<Route> {
    let page = |doc: Doc| doc.query("after", "The last name of the page before").limit().reads();
    let handlers =
        get(objects::read).put(objects::put).post(objects::act).patch(objects::patch).delete(objects::remove);
    let pointer = "Documents: a JSON Pointer";
    vec![
        Route::new(
            "/v1/spaces/{space}/transactions",
            post(objects::transact),
            vec![
                Doc::post("transact", "Do several things at once: all or none, everywhere")
                    .takes::<objects::Operations>()
                    .writes(),
            ],
        ),
        Route::new(
            "/v1/spaces/{space}/{kind}",
            get(objects::collections),
            vec![
                page(Doc::get("listCollections", "Collections in which objects of a kind hold something"))
                    .shows::<said::Collections>("A page of collections"),
            ],
        ),
        Route::new(
            "/v1/spaces/{space}/{kind}/{collection}",
            get(objects::keys),
            vec![
                page(
                    Doc::get("listKeys", "Keys whose objects hold something")
                        .query("prefix", "What keys start with"),
                )
                .shows::<said::Keys>("A page of keys"),
            ],
        ),
        Route::new(
            OBJECT,
            handlers,
            vec![
                page(
                    Doc::get("read", "Read an object")
                        .query("pointer", pointer)
                        .query("heads", "Documents: hashes that name a version, separated by commas")
                        .query(
                            "form",
                            "Documents: tagged (the default), or plain, without tags for what JSON lacks",
                        )
                        .query("path", "Maps: a key that leads on; may be repeated")
                        .query("kind", "Maps: the kind of what the path leads to"),
                )
                .shows::<said::Object>("The object"),
                Doc::new(
                    HttpMethod::Put,
                    "put",
                    "Write a register or a flag as {\"value\": …}, or a document as it is",
                )
                .query("pointer", pointer)
                .takes_any("application/json")
                .writes(),
                Doc::post("act", "Do something to an object").takes::<action::Action>().writes(),
                Doc::new(HttpMethod::Patch, "patch", "Change a document by RFC 7396 or RFC 6902")
                    .query("pointer", pointer)
                    .takes_any("application/merge-patch+json")
                    .takes_any("application/json-patch+json")
                    .writes(),
                Doc::new(HttpMethod::Delete, "remove", "Remove what is seen of an object").writes(),
            ],
        ),
    ]
}

fn documents() -> Vec<Route> {
    vec![
        Route::new(
            format!("{OBJECT}/versions"),
            get(document::versions),
            vec![
                Doc::get("versions", "The versions of a document, newest first")
                    .query("after", "The last hash of the page before")
                    .limit()
                    .reads()
                    .shows::<said::Versions>("A page of versions"),
            ],
        ),
        Route::new(
            format!("{OBJECT}/diff"),
            get(document::diff),
            vec![
                Doc::get("diff", "What leads from one version of a document to another")
                    .query("from", "Hashes separated by commas; the empty document otherwise")
                    .query("to", "Hashes separated by commas; the newest version otherwise")
                    .reads()
                    .shows::<said::Patches>("Patches in their order"),
            ],
        ),
        Route::new(
            format!("{OBJECT}/marks"),
            get(document::marks),
            vec![
                Doc::get("marks", "The marks of a text in a document")
                    .query("pointer", "The text")
                    .reads()
                    .shows::<said::Marks>("The marks"),
            ],
        ),
        Route::new(
            format!("{OBJECT}/content"),
            get(document::export).post(document::import),
            vec![
                Doc::get("export", "A document as Automerge saves it").reads().answers_with(
                    200,
                    "application/octet-stream",
                    "The bytes",
                ),
                Doc::post("import", "Add what an Automerge program saved or sent")
                    .query("wait_ms", "How long to wait for what must have been seen, ms")
                    .header("Comity-Token", "What must have been seen before")
                    .takes_any("application/octet-stream")
                    .shows::<said::Imported>("How many changes were not there yet"),
            ],
        ),
    ]
}
