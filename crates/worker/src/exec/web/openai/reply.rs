//! Whether an answer to a chat or a completion is one: as many choices as asked for, each with its text.

use serde_json::Value;

use super::ask::{Ask, Kind};

/// The error completes "it answered with …".
pub(super) fn check(ask: &Ask, value: &Value) -> Result<(), String> {
    let Some(choices) = value.get("choices").and_then(Value::as_array) else {
        return Err("JSON that is no completion: it has no choices".to_owned());
    };
    if choices.len() != ask.count {
        return Err(format!("{} choices, where {} were asked for", choices.len(), ask.count));
    }
    for choice in choices {
        let text = match ask.kind {
            Kind::Chat => message(choice)?,
            Kind::Completions | Kind::Embeddings => {
                Some(choice.get("text").and_then(Value::as_str).ok_or("a choice that has no text")?)
            }
        };
        if let (Some(form), Some(text)) = (&ask.form, text)
            && let Some(fault) = form.fault(text)
        {
            return Err(fault);
        }
    }
    Ok(())
}

/// The text of a chat's choice; `None` for one that refuses or calls tools instead.
fn message(choice: &Value) -> Result<Option<&str>, String> {
    let message = choice.get("message").filter(|message| message.is_object()).ok_or("a choice that has no message")?;
    match message.get("content") {
        Some(Value::String(text)) => Ok(Some(text)),
        // Some servers answer in parts; what they hold is theirs to say.
        Some(Value::Array(parts)) if !parts.is_empty() => Ok(None),
        _ => {
            let is_there = |name: &str| message.get(name).is_some_and(|value| !value.is_null());
            let says_otherwise = ["tool_calls", "function_call", "refusal", "audio"].into_iter().any(is_there);
            says_otherwise.then_some(None).ok_or_else(|| "a message that has no content".to_owned())
        }
    }
}
