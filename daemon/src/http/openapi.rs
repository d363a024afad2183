//! The description of the API (OpenAPI 3.1). It is made from the same table as the router, so that no route is without a
//! description and none is described that is not there.

pub(super) mod answers;

use std::sync::Arc;

use axum::http::Method;
use axum::response::{IntoResponse, Response};
use axum::routing::MethodRouter;
use utoipa::openapi::path::{
    HttpMethod, OperationBuilder, Parameter, ParameterBuilder, ParameterIn, PathItem, PathsBuilder,
};
use utoipa::openapi::request_body::RequestBodyBuilder;
use utoipa::openapi::schema::{SchemaFormat, Type};
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa::openapi::{
    ComponentsBuilder, ContentBuilder, HeaderBuilder, InfoBuilder, ObjectBuilder, OpenApi, OpenApiBuilder,
    Ref, RefOr, Required, ResponseBuilder, Schema, SecurityRequirement, ServerBuilder,
};
use utoipa::{PartialSchema, ToSchema};

use super::App;
use super::problem::Trouble;
use crate::names;

use answers as said;

type SchemaOf = RefOr<Schema>;

/// A path with its handlers and their descriptions.
pub(super) struct Route {
    pub(super) path: String,
    pub(super) handlers: MethodRouter<Arc<App>>,
    docs: Vec<Doc>,
    /// It lasts as long as it is read.
    pub(super) is_feed: bool,
}

impl Route {
    pub(super) fn new(path: impl Into<String>, handlers: MethodRouter<Arc<App>>, docs: Vec<Doc>) -> Self {
        Self { path: path.into(), handlers, docs, is_feed: false }
    }

    pub(super) fn feed(path: impl Into<String>, handlers: MethodRouter<Arc<App>>, docs: Vec<Doc>) -> Self {
        Self { is_feed: true, ..Self::new(path, handlers, docs) }
    }

    /// The methods by which it writes as durably as is asked, and once for each `Idempotency-Key`.
    pub(super) fn writes(&self) -> Arc<[Method]> {
        self.docs.iter().filter(|doc| doc.is_write).map(|doc| method(&doc.method)).collect()
    }
}

/// The description of one operation.
pub(super) struct Doc {
    method: HttpMethod,
    id: &'static str,
    summary: &'static str,
    parameters: Vec<Parameter>,
    bodies: Vec<(&'static str, SchemaOf)>,
    answers: Vec<Answer>,
    schemas: Vec<(String, SchemaOf)>,
    is_write: bool,
}

struct Answer {
    status: u16,
    about: &'static str,
    content: Option<(&'static str, SchemaOf)>,
    /// Whether it comes with a token.
    has_token: bool,
}

fn text() -> SchemaOf {
    ObjectBuilder::new().schema_type(Type::String).build().into()
}

fn whole(minimum: u32, maximum: u32) -> SchemaOf {
    let number =
        ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(minimum)).maximum(Some(maximum));
    number.build().into()
}

fn parameter(name: &str, place: ParameterIn, schema: SchemaOf, about: &str) -> Parameter {
    let required = if matches!(place, ParameterIn::Path) { Required::True } else { Required::False };
    ParameterBuilder::new()
        .name(name)
        .parameter_in(place)
        .required(required)
        .schema(Some(schema))
        .description(Some(about))
        .build()
}

fn named<T: ToSchema>() -> SchemaOf {
    Ref::from_schema_name(T::name()).into()
}

/// The longest wait that may be asked for, ms.
const WAIT_MS_MAX: u32 = 600_000;

impl Doc {
    pub(super) fn new(method: HttpMethod, id: &'static str, summary: &'static str) -> Self {
        let (parameters, bodies, answers, schemas) = Default::default();
        Self { method, id, summary, parameters, bodies, answers, schemas, is_write: false }
    }

    pub(super) fn get(id: &'static str, summary: &'static str) -> Self {
        Self::new(HttpMethod::Get, id, summary)
    }

    pub(super) fn post(id: &'static str, summary: &'static str) -> Self {
        Self::new(HttpMethod::Post, id, summary)
    }

    fn keep<T: ToSchema>(&mut self) -> SchemaOf {
        self.schemas.push((T::name().into_owned(), T::schema()));
        T::schemas(&mut self.schemas);
        named::<T>()
    }

    pub(super) fn query(mut self, name: &str, about: &str) -> Self {
        self.parameters.push(parameter(name, ParameterIn::Query, text(), about));
        self
    }

    pub(super) fn limit(mut self) -> Self {
        let most = super::read::PAGE_MAX as u32;
        self.parameters.push(parameter("limit", ParameterIn::Query, whole(1, most), "At most so many"));
        self
    }

    pub(super) fn header(mut self, name: &str, about: &str) -> Self {
        self.parameters.push(parameter(name, ParameterIn::Header, text(), about));
        self
    }

    /// It reads at a moment that can be asked for.
    pub(super) fn reads(mut self) -> Self {
        let ms = || whole(0, WAIT_MS_MAX);
        let truth = ObjectBuilder::new().schema_type(Type::Boolean).build().into();
        self.parameters.push(parameter(
            "fresh_ms",
            ParameterIn::Query,
            ms(),
            "How old what is read may be, ms",
        ));
        self.parameters.push(parameter(
            "wait_ms",
            ParameterIn::Query,
            ms(),
            "How long to wait for others, ms",
        ));
        let quorum = "Whether to show everything that a majority of the members had";
        self.parameters.push(parameter("read_quorum", ParameterIn::Query, truth, quorum));
        self.header("Comity-Token", "What must have been seen: what an earlier answer said in this header")
    }

    /// It writes, as durably as is asked for.
    pub(super) fn writes(mut self) -> Self {
        self.is_write = true;
        let wait = whole(0, WAIT_MS_MAX);
        self.parameters.push(parameter(
            "wait_ms",
            ParameterIn::Query,
            wait,
            "How long to wait for others, ms",
        ));
        let receipt = self.keep::<said::Receipt>();
        for (status, about) in [
            (200, "Made, as durable as was asked"),
            (202, "Made and durable here; not yet as durable as was asked"),
        ] {
            let content = Some(("application/json", receipt.clone()));
            self.answers.push(Answer { status, about, content, has_token: true });
        }
        self.header(
            "Comity-Durability",
            "local, remote=N, quorum, all, or regions=NAME,NAME; local otherwise",
        )
        .header("Comity-Token", "What must have been seen before the write is made")
        .header("Idempotency-Key", "An id under which the write can be repeated without being made twice")
    }

    pub(super) fn takes<T: ToSchema>(mut self) -> Self {
        let schema = self.keep::<T>();
        self.bodies.push(("application/json", schema));
        self
    }

    /// A body of any JSON, or of bytes.
    pub(super) fn takes_any(mut self, kind: &'static str) -> Self {
        let schema = if kind == "application/octet-stream" { text() } else { serde_json::Value::schema() };
        self.bodies.push((kind, schema));
        self
    }

    pub(super) fn answers<T: ToSchema>(mut self, status: u16, about: &'static str) -> Self {
        let schema = self.keep::<T>();
        let content = Some(("application/json", schema));
        self.answers.push(Answer { status, about, content, has_token: false });
        self
    }

    /// As [`Doc::answers`] of 200, with the token of what was read.
    pub(super) fn shows<T: ToSchema>(mut self, about: &'static str) -> Self {
        let schema = self.keep::<T>();
        self.answers.push(Answer {
            status: 200,
            about,
            content: Some(("application/json", schema)),
            has_token: true,
        });
        self
    }

    pub(super) fn answers_with(mut self, status: u16, kind: &'static str, about: &'static str) -> Self {
        self.answers.push(Answer { status, about, content: Some((kind, text())), has_token: false });
        self
    }

    pub(super) fn done(mut self) -> Self {
        self.answers.push(Answer { status: 204, about: "Done", content: None, has_token: false });
        self
    }

    fn operation(&self, path: &str) -> OperationBuilder {
        let mut operation = OperationBuilder::new().operation_id(Some(self.id)).summary(Some(self.summary));
        for name in path.split('{').skip(1).filter_map(|rest| rest.split('}').next()) {
            operation = operation.parameter(path_parameter(name));
        }
        for parameter in &self.parameters {
            operation = operation.parameter(parameter.clone());
        }
        if !self.bodies.is_empty() {
            let body = RequestBodyBuilder::new().required(Some(Required::True));
            let body = self.bodies.iter().fold(body, |body, (kind, schema)| {
                body.content(*kind, ContentBuilder::new().schema(Some(schema.clone())).build())
            });
            operation = operation.request_body(Some(body.build()));
        }
        for answer in &self.answers {
            let mut response = ResponseBuilder::new().description(answer.about);
            if let Some((kind, schema)) = &answer.content {
                response =
                    response.content(*kind, ContentBuilder::new().schema(Some(schema.clone())).build());
            }
            if answer.has_token {
                let header =
                    HeaderBuilder::new().schema(text()).description(Some("What was seen or written"));
                response = response.header("Comity-Token", header.build());
            }
            operation = operation.response(answer.status.to_string(), response.build());
        }
        let mut statuses: Vec<u16> = Trouble::ALL.iter().map(|trouble| trouble.status().as_u16()).collect();
        statuses.sort_unstable();
        statuses.dedup();
        for status in statuses {
            let kinds = Trouble::ALL.iter().filter(|trouble| trouble.status().as_u16() == status);
            let about = kinds.map(|trouble| format!("`{}`", trouble.kind())).collect::<Vec<_>>().join(", ");
            let content = ContentBuilder::new().schema(Some(named::<said::Problem>())).build();
            let response =
                ResponseBuilder::new().description(about).content("application/problem+json", content);
            operation = operation.response(status.to_string(), response.build());
        }
        operation
    }
}

fn method(described: &HttpMethod) -> Method {
    match described {
        HttpMethod::Get => Method::GET,
        HttpMethod::Post => Method::POST,
        HttpMethod::Put => Method::PUT,
        HttpMethod::Delete => Method::DELETE,
        HttpMethod::Options => Method::OPTIONS,
        HttpMethod::Head => Method::HEAD,
        HttpMethod::Patch => Method::PATCH,
        HttpMethod::Trace => Method::TRACE,
    }
}

fn path_parameter(name: &str) -> Parameter {
    let uuid = || {
        ObjectBuilder::new().schema_type(Type::String).format(Some(SchemaFormat::Custom("uuid".to_owned())))
    };
    let string = || ObjectBuilder::new().schema_type(Type::String).min_length(Some(1));
    let (schema, about): (SchemaOf, _) = match name {
        "space" => (uuid().build().into(), "The space"),
        "kind" => {
            let kinds = comity::Kind::APPLICATION.map(comity::Kind::name);
            (string().enum_values(Some(kinds)).build().into(), "The kind of the objects")
        }
        "replica" => (string().pattern(Some("^[0-9a-f]{64}$")).build().into(), "The replica"),
        "id" => (whole(1, u32::MAX), "The job"),
        "collection" => (string().max_length(Some(128)).build().into(), "The collection"),
        _ => (string().max_length(Some(512)).build().into(), "The key"),
    };
    parameter(name, ParameterIn::Path, schema, about)
}

/// The document that describes the routes.
pub(super) fn describe(routes: &[Route]) -> OpenApi {
    let mut paths = PathsBuilder::new();
    let mut components = ComponentsBuilder::new()
        .security_scheme("token", SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer)));
    let problem = [(said::Problem::name().into_owned(), said::Problem::schema())];
    for route in routes {
        for doc in &route.docs {
            let item = PathItem::new(doc.method.clone(), doc.operation(&route.path));
            paths = paths.path(route.path.clone(), item);
            components = components.schemas_from_iter(doc.schemas.clone());
        }
    }
    let info = InfoBuilder::new()
        .title("Comity")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(format!(
            "A regional daemon of a multi-leader, geo-replicated database. Kinds of objects: {}. Errors are problems \
             (RFC 9457) with the types that each answer lists.",
            names::kinds()
        )))
        .build();
    OpenApiBuilder::new()
        .info(info)
        .servers(Some([ServerBuilder::new().url("/").build()]))
        .paths(paths)
        .components(Some(components.schemas_from_iter(problem).build()))
        // A request on loopback or the Unix socket needs no token.
        .security(Some([
            SecurityRequirement::default(),
            SecurityRequirement::new("token", Vec::<String>::new()),
        ]))
        .build()
}

/// The document, as it is served.
pub(super) fn serve(text: &Arc<str>) -> Response {
    ([(axum::http::header::CONTENT_TYPE, "application/json")], text.to_string()).into_response()
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::super::routes::table;
    use super::*;

    #[test]
    fn names_of_schemas_and_operations_are_unique_and_every_reference_leads_somewhere() {
        let (table, mut schemas, mut ids) = (table(), BTreeMap::new(), BTreeSet::new());
        for doc in table.iter().flat_map(|route| &route.docs) {
            assert!(ids.insert(doc.id), "two operations are named {}", doc.id);
            for (name, schema) in &doc.schemas {
                let schema = serde_json::to_string(schema).unwrap();
                let other = schemas.insert(name.clone(), schema.clone());
                assert!(other.is_none_or(|other| other == schema), "two schemas are named {name}");
            }
        }
        assert!(ids.len() > 35, "{}", ids.len());
        let document = serde_json::to_string(&describe(&table)).unwrap();
        for reference in document.split("#/components/schemas/").skip(1) {
            let name = reference.split('"').next().unwrap();
            assert!(document.contains(&format!("\"{name}\":{{")), "{name} is not described");
        }
    }
}
