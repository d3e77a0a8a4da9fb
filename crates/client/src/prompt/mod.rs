//! Rows made into requests for a model, and a model's answers made into results. It knows no source, no sink and no
//! backend: a row goes in as its fields, and comes out as the JSON of an OpenAI-compatible request.
//!
//! Invariants: equal rows give equal requests, byte for byte, so that the key of a task covers everything that decides
//! its answer; a field that a row does not have is an error and never an empty text.

mod answer;

use std::sync::Arc;

use bytes::Bytes;
use minijinja::{Environment, UndefinedBehavior};
use serde_json::{Map, Value, json};
use sheaf_task::BODY_BYTES_MAX;

pub use answer::Tokens;

/// What is asked of a model, row by row.
#[derive(Clone, Debug, PartialEq)]
pub struct PromptSpec {
    /// What is made of a row.
    pub task: PromptTask,
    /// Who answers.
    pub model: String,
    /// Further fields of each request, as they are.
    pub params: Map<String, Value>,
}

/// What is made of a row. The texts are templates over its fields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PromptTask {
    /// A chat of one turn.
    Chat {
        /// What the user says.
        prompt: String,
        /// What comes before it.
        system: Option<String>,
    },
    /// A vector.
    Embed {
        /// Of this text.
        text: String,
    },
}

/// Templates that have been read.
#[derive(Clone)]
pub struct Prompt {
    spec: Arc<PromptSpec>,
    templates: Arc<Environment<'static>>,
}

/// Why there is no prompt.
#[derive(Debug, thiserror::Error)]
pub enum PromptError {
    /// It is no template.
    #[error("--{option} cannot be read as a template: {error}")]
    Syntax {
        /// Which.
        option: &'static str,
        /// What is wrong with it.
        error: minijinja::Error,
    },
    /// A further field that the prompt itself makes.
    #[error("--param {name} would replace what the prompt makes: leave it out")]
    Param {
        /// Which.
        name: String,
    },
}

/// The names of the templates: those of the options.
const PROMPT: &str = "prompt";
const SYSTEM: &str = "system";
const EMBED: &str = "embed";

impl Prompt {
    /// Reads the templates.
    pub fn new(spec: PromptSpec) -> Result<Self, PromptError> {
        let mut templates = Environment::new();
        templates.set_undefined_behavior(UndefinedBehavior::Strict);
        for (option, text) in spec.task.texts() {
            let added = templates.add_template_owned(option, text.to_owned());
            added.map_err(|error| PromptError::Syntax { option, error })?;
        }
        if let Some(name) =
            spec.params.keys().find(|name| ["model", "messages", "input", "prompt"].contains(&name.as_str()))
        {
            return Err(PromptError::Param { name: name.clone() });
        }
        Ok(Self { spec: Arc::new(spec), templates: Arc::new(templates) })
    }

    /// What a job's fingerprint holds of it.
    pub(crate) fn description(&self) -> String {
        let PromptSpec { task, model, params } = &*self.spec;
        let texts: Map<String, Value> = task.texts().map(|(name, text)| (name.to_owned(), text.into())).collect();
        json!({ "texts": texts, "model": model, "params": params }).to_string()
    }

    /// The request for a row; `is_text`: its body is a text and no JSON. The error says what is wrong.
    pub(crate) fn request(&self, body: &[u8], is_text: bool) -> Result<Bytes, String> {
        let fields = fields(body, is_text)?;
        let PromptSpec { task, model, params } = &*self.spec;
        let mut request = params.clone();
        request.insert("model".to_owned(), model.as_str().into());
        match task {
            PromptTask::Chat { system, .. } => {
                let mut messages = Vec::new();
                if system.is_some() {
                    messages.push(json!({ "role": "system", "content": self.render(SYSTEM, &fields)? }));
                }
                messages.push(json!({ "role": "user", "content": self.render(PROMPT, &fields)? }));
                request.insert("messages".to_owned(), messages.into());
            }
            PromptTask::Embed { .. } => {
                request.insert("input".to_owned(), self.render(EMBED, &fields)?.into());
            }
        }
        let request = Value::Object(request).to_string();
        if request.len() > BODY_BYTES_MAX {
            return Err(format!("the request is {} bytes long; it may have {BODY_BYTES_MAX}", request.len()));
        }
        Ok(request.into())
    }

    fn render(&self, name: &str, fields: &Map<String, Value>) -> Result<String, String> {
        let template = self.templates.get_template(name).map_err(|error| error.to_string())?;
        template.render(minijinja::value::Serde(fields)).map_err(|error| {
            let mut missing: Vec<String> = template.undeclared_variables(false).into_iter().collect();
            missing.retain(|variable| !fields.contains_key(variable));
            missing.sort();
            let is_undefined = error.kind() == minijinja::ErrorKind::UndefinedError;
            match (is_undefined && !missing.is_empty(), fields.keys().cloned().collect::<Vec<_>>().join(", ")) {
                (true, known) => {
                    format!("--{name} names {}, which the row does not have; it has {known}", missing.join(", "))
                }
                (false, _) => format!("--{name} cannot be rendered: {error}"),
            }
        })
    }
}

impl PromptTask {
    /// Each template, by the option that gives it.
    fn texts(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let texts = match self {
            PromptTask::Chat { prompt, system } => {
                [Some((PROMPT, prompt.as_str())), system.as_deref().map(|system| (SYSTEM, system))]
            }
            PromptTask::Embed { text } => [Some((EMBED, text.as_str())), None],
        };
        texts.into_iter().flatten()
    }
}

/// The fields of a row; `text` for one that has none.
fn fields(body: &[u8], is_text: bool) -> Result<Map<String, Value>, String> {
    let value = if is_text {
        let text = std::str::from_utf8(body).map_err(|_| "the row is not UTF-8, and a request must be".to_owned())?;
        Value::from(text)
    } else {
        serde_json::from_slice(body).map_err(|error| format!("the row is no JSON: {error}"))?
    };
    Ok(match value {
        Value::Object(fields) => fields,
        other => [("text".to_owned(), other)].into_iter().collect(),
    })
}

impl std::fmt::Debug for Prompt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.spec.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chat(prompt: &str) -> Prompt {
        let task =
            PromptTask::Chat { prompt: prompt.to_owned(), system: Some("Be {{ mood | default('calm') }}.".to_owned()) };
        let params = [("temperature".to_owned(), json!(0))].into_iter().collect();
        Prompt::new(PromptSpec { task, model: "m".to_owned(), params }).unwrap()
    }

    #[test]
    fn fields_of_a_row_go_into_the_request() {
        let request = chat("Classify: {{ text }} ({{ meta.stars }})")
            .request(br#"{"text":"so \"so\"","meta":{"stars":3}}"#, false);
        let request: Value = serde_json::from_slice(&request.unwrap()).unwrap();
        let messages = json!([
            { "role": "system", "content": "Be calm." },
            { "role": "user", "content": "Classify: so \"so\" (3)" },
        ]);
        assert_eq!(request, json!({ "model": "m", "temperature": 0, "messages": messages }));
        assert!(chat("{{ text }}").request("grün".as_bytes(), true).is_ok());
        assert!(chat("{{ text }}").request(b"\"a string\"", false).is_ok());
    }

    #[test]
    fn a_field_that_is_not_there_is_named_with_those_that_are() {
        let fault = chat("{{ txt }}").request(br#"{"text":"x","id":1}"#, false).unwrap_err();
        assert!(["txt", "id", "text"].into_iter().all(|name| fault.contains(name)), "{fault}");
        assert!(chat("{{ text.inner.deep }}").request(b"x", true).is_err());
        assert!(chat("{{ text }}").request(b"\xff", true).is_err());
        assert!(chat("{{ text }}").request("x".repeat(BODY_BYTES_MAX).as_bytes(), true).is_err());
    }

    #[test]
    fn what_cannot_be_a_prompt_is_refused() {
        let task = |text: &str| PromptTask::Embed { text: text.to_owned() };
        let spec = |text, params| PromptSpec { task: task(text), model: "m".to_owned(), params };
        assert!(matches!(Prompt::new(spec("{{ text", Map::new())), Err(PromptError::Syntax { option: "embed", .. })));
        let params: Map<String, Value> = [("input".to_owned(), json!(1))].into_iter().collect();
        assert!(matches!(Prompt::new(spec("{{ text }}", params)), Err(PromptError::Param { .. })));
    }

    #[test]
    fn whatever_differs_makes_another_description() {
        let base = chat("a").description();
        assert_eq!(base, chat("a").description());
        assert_ne!(base, chat("b").description());
    }
}
