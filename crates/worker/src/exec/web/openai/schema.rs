//! What the text of an answer must be, as a request's `response_format` says: JSON, or JSON of a schema.
//!
//! Schemas are compiled once and kept, a few of them: the rows of a job share one. Nothing is fetched: a reference to
//! another document is an error.

use std::collections::VecDeque;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

/// Compiled schemas that are kept; the oldest leaves.
const SCHEMAS_MAX: usize = 16;

/// What a text must be.
#[derive(Debug)]
pub(crate) enum Form {
    /// A JSON object of any kind.
    Object,
    /// What the schema allows.
    Schema(Box<jsonschema::Validator>),
}

impl Form {
    /// What is wrong with a text, if anything is.
    pub(crate) fn fault(&self, text: &str) -> Option<String> {
        let value: Value = match serde_json::from_str(text) {
            Ok(value) => value,
            Err(error) => return Some(format!("text that is no JSON, which the request wants ({error})")),
        };
        match self {
            Form::Object if value.is_object() => None,
            Form::Object => Some("JSON that is no object, which the request wants".to_owned()),
            Form::Schema(schema) => {
                let error = schema.validate(&value).err()?;
                let (place, what) = (error.instance_path().to_string(), error.to_string());
                let place = if place.is_empty() { String::new() } else { format!(" at {place}") };
                let what: String = what.chars().take(FAULT_CHARS_MAX).collect();
                Some(format!("JSON that the schema does not allow{place}: {what}"))
            }
        }
    }
}

/// Of what a schema does not allow, as much as a message bears.
const FAULT_CHARS_MAX: usize = 300;

/// Compiled schemas, by their texts.
#[derive(Debug, Default)]
pub(crate) struct Schemas {
    known: VecDeque<(Box<RawValue>, Option<Arc<Form>>)>,
}

#[derive(Deserialize)]
struct Format {
    #[serde(rename = "type")]
    kind: String,
    json_schema: Option<JsonSchema>,
}

#[derive(Deserialize)]
struct JsonSchema {
    schema: Option<Value>,
}

impl Schemas {
    /// What a `response_format` asks for; the error says why it cannot be.
    pub(crate) fn form(&mut self, format: &RawValue) -> Result<Option<Arc<Form>>, String> {
        if let Some((_, form)) = self.known.iter().find(|(text, _)| text.get() == format.get()) {
            return Ok(form.clone());
        }
        let form = compile(format)?.map(Arc::new);
        if self.known.len() >= SCHEMAS_MAX {
            self.known.pop_front();
        }
        self.known.push_back((format.to_owned(), form.clone()));
        Ok(form)
    }
}

fn compile(format: &RawValue) -> Result<Option<Form>, String> {
    let format: Option<Format> = serde_json::from_str(format.get())
        .map_err(|error| format!("the request's response_format is wrong: {error}"))?;
    let Some(Format { kind, json_schema }) = format else { return Ok(None) };
    match (kind.as_str(), json_schema.and_then(|given| given.schema)) {
        ("json_schema", Some(schema)) => Ok(Some(Form::Schema(Box::new(validator(&schema)?)))),
        ("json_schema", None) => Err("the request's response_format has no schema".to_owned()),
        ("json_object", _) => Ok(Some(Form::Object)),
        _ => Ok(None),
    }
}

/// Finds what is wrong with a JSON Schema before any answer is held against it.
pub fn check_schema(schema: &Value) -> Result<(), String> {
    validator(schema).map(|_| ())
}

fn validator(schema: &Value) -> Result<jsonschema::Validator, String> {
    jsonschema::validator_for(schema).map_err(|error| format!("it is no JSON Schema: {error}"))
}
