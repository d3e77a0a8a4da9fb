//! A request of the API, read from a task's body: where it goes, and what an answer to it must look like.
//!
//! Invariant: what the body says is sent as it stands, each value byte for byte; only a missing model is filled in.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::schema::{Form, Schemas};

/// The three requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Chat,
    Completions,
    Embeddings,
}

impl Kind {
    /// Below the address of the API.
    pub(crate) fn path(self) -> &'static str {
        match self {
            Kind::Chat => "/chat/completions",
            Kind::Completions => "/completions",
            Kind::Embeddings => "/embeddings",
        }
    }
}

/// One request.
#[derive(Clone, Debug)]
pub(crate) struct Ask {
    pub(crate) kind: Kind,
    pub(crate) model: String,
    /// What is sent where it is sent alone.
    pub(crate) body: Bytes,
    /// Choices or vectors that must come.
    pub(crate) count: usize,
    /// Length of each vector, where the request says it.
    pub(crate) dimensions: Option<usize>,
    /// What the text of each choice must be.
    pub(crate) form: Option<Arc<Form>>,
    /// The answer is wanted as a stream.
    pub(crate) streams: bool,
    /// Its one text and everything else of it: requests that agree in all else may go together.
    pub(crate) part: Option<Part>,
}

/// What a request for one vector adds to one for many.
#[derive(Clone, Debug)]
pub(crate) struct Part {
    /// A JSON string.
    pub(crate) input: Box<RawValue>,
    /// The other fields, as JSON without the braces.
    pub(crate) rest: String,
}

type Fields = BTreeMap<String, Box<RawValue>>;

impl Ask {
    /// Reads a task's body. The error says what is wrong with it.
    pub(crate) fn read(body: &Bytes, model: Option<&str>, schemas: &mut Schemas) -> Result<Self, String> {
        let mut fields: Fields = serde_json::from_slice(body).map_err(|error| {
            format!(
                "the row is no request, which is a JSON object with messages, prompt or input ({error}); to make requests \
                 of rows, give sheaf run --prompt or --embed"
            )
        })?;
        let kind = [("messages", Kind::Chat), ("prompt", Kind::Completions), ("input", Kind::Embeddings)];
        let Some((name, kind)) = kind.into_iter().find(|(name, _)| fields.contains_key(*name)) else {
            return Err("the row is no request: it has none of messages, prompt and input".to_owned());
        };
        let named = field::<String>(&fields, "model")?;
        let body = match (&named, model) {
            (Some(_), _) => body.clone(),
            (None, Some(model)) => {
                let model = serde_json::value::to_raw_value(model).map_err(|error| error.to_string())?;
                fields.insert("model".to_owned(), model);
                serde_json::to_vec(&fields).map_err(|error| error.to_string())?.into()
            }
            (None, None) => return Err("the request names no model, and neither does this worker (--model)".to_owned()),
        };
        let model = named.or_else(|| model.map(str::to_owned)).unwrap_or_default();
        let count = parts(&fields, name)? * field::<usize>(&fields, "n")?.unwrap_or(1);
        if count == 0 {
            return Err(format!("the request asks for nothing: its {name} is empty, or its n is 0"));
        }
        let form = match fields.get("response_format") {
            Some(format) => schemas.form(format)?,
            None => None,
        };
        let dimensions = field(&fields, "dimensions")?;
        let streams = field(&fields, "stream")?.unwrap_or(false);
        let part = if kind == Kind::Embeddings { part(fields) } else { None };
        Ok(Self { kind, model, body, count, dimensions, form, streams, part })
    }
}

/// The body of one request for the vectors of several, which [`Ask::part`] allows.
pub(crate) fn join(parts: &[&Part]) -> Bytes {
    let mut out = String::from("{\"input\":[");
    for (place, part) in parts.iter().enumerate() {
        out.push_str(if place == 0 { "" } else { "," });
        out.push_str(part.input.get());
    }
    out.push(']');
    if let Some(first) = parts.first()
        && !first.rest.is_empty()
    {
        out.push(',');
        out.push_str(&first.rest);
    }
    out.push('}');
    out.into()
}

/// How many answers the field asks for: a text or an array of tokens is one, an array of either so many.
fn parts(fields: &Fields, name: &str) -> Result<usize, String> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Parts {
        Tokens(Vec<u64>),
        Several(Vec<serde::de::IgnoredAny>),
        One(serde::de::IgnoredAny),
    }
    Ok(match field::<Parts>(fields, name)? {
        Some(Parts::Tokens(tokens)) => usize::from(!tokens.is_empty()),
        Some(Parts::Several(parts)) if name != "messages" => parts.len(),
        Some(Parts::Several(messages)) => usize::from(!messages.is_empty()),
        Some(Parts::One(_)) => 1,
        None => 0,
    })
}

fn part(mut fields: Fields) -> Option<Part> {
    let input = fields.remove("input").filter(|input| input.get().starts_with('"'))?;
    let mut rest = serde_json::to_string(&fields).ok()?;
    rest.pop();
    Some(Part { input, rest: rest.split_off(1) })
}

fn field<'a, T: Deserialize<'a>>(fields: &'a Fields, name: &str) -> Result<Option<T>, String> {
    let Some(value) = fields.get(name) else { return Ok(None) };
    serde_json::from_str::<Option<T>>(value.get()).map_err(|error| format!("the request's {name} is wrong: {error}"))
}
