//! What of a model's answer is the result: the text of a chat, the vector of an embedding; and the tokens that it cost.
//!
//! Whether it is an answer has been judged where it came from. What does not look like one is passed on as it is.

use bytes::Bytes;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{Prompt, PromptTask};

/// Tokens, as the backend counts them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tokens {
    /// Of what was asked.
    pub prompt: u64,
    /// Of what was answered.
    pub completion: u64,
}

impl std::ops::AddAssign for Tokens {
    fn add_assign(&mut self, other: Self) {
        self.prompt += other.prompt;
        self.completion += other.completion;
    }
}

#[derive(Deserialize)]
struct Chat {
    choices: Vec<Choice>,
}

#[derive(Deserialize)]
struct Choice {
    message: Message,
}

#[derive(Deserialize)]
struct Message {
    content: Option<String>,
}

#[derive(Deserialize)]
struct Embeddings<'a> {
    #[serde(borrow)]
    data: Vec<Embedding<'a>>,
}

#[derive(Deserialize)]
struct Embedding<'a> {
    #[serde(borrow)]
    embedding: &'a RawValue,
}

#[derive(Deserialize)]
struct Cost {
    usage: Option<Usage>,
}

#[derive(Deserialize)]
struct Usage {
    #[serde(default)]
    prompt_tokens: u64,
    #[serde(default)]
    completion_tokens: u64,
}

impl Prompt {
    /// The result in an answer, and what it cost. Several choices are an array of their texts.
    pub(crate) fn result(&self, answer: Bytes) -> (Bytes, Option<Tokens>) {
        let result = match &self.spec.task {
            PromptTask::Chat { .. } => text(&answer),
            PromptTask::Embed { .. } => vector(&answer),
        };
        let cost = serde_json::from_slice::<Cost>(&answer).ok().and_then(|cost| cost.usage);
        let tokens = cost.map(|usage| Tokens { prompt: usage.prompt_tokens, completion: usage.completion_tokens });
        (result.unwrap_or(answer), tokens)
    }
}

fn text(answer: &[u8]) -> Option<Bytes> {
    let chat: Chat = serde_json::from_slice(answer).ok()?;
    let mut texts = chat.choices.into_iter().map(|choice| choice.message.content).collect::<Option<Vec<_>>>()?;
    if texts.len() > 1 {
        return serde_json::to_vec(&texts).ok().map(Bytes::from);
    }
    texts.pop().map(Bytes::from)
}

fn vector(answer: &[u8]) -> Option<Bytes> {
    let list: Embeddings<'_> = serde_json::from_slice(answer).ok()?;
    match list.data.as_slice() {
        [one] => Some(Bytes::copy_from_slice(one.embedding.get().as_bytes())),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prompt::PromptSpec;

    fn result(task: PromptTask, answer: &str) -> (String, Option<Tokens>) {
        let prompt = Prompt::new(PromptSpec { task, model: "m".into(), params: serde_json::Map::new() }).unwrap();
        let (body, tokens) = prompt.result(Bytes::copy_from_slice(answer.as_bytes()));
        (String::from_utf8(body.to_vec()).unwrap(), tokens)
    }

    #[test]
    fn texts_and_vectors_are_taken_out_and_all_else_stays() {
        let chat = || PromptTask::Chat { prompt: "x".into(), system: None };
        let embed = || PromptTask::Embed { text: "x".into() };
        let answer =
            r#"{"choices":[{"message":{"content":"good"}}],"usage":{"prompt_tokens":3,"completion_tokens":1}}"#;
        assert_eq!(result(chat(), answer), ("good".into(), Some(Tokens { prompt: 3, completion: 1 })));
        let two = r#"{"choices":[{"message":{"content":"a"}},{"message":{"content":"b"}}]}"#;
        assert_eq!(result(chat(), two), (r#"["a","b"]"#.into(), None));
        let vector = r#"{"data":[{"embedding":[0.10, -1e-3]}],"usage":{"prompt_tokens":2}}"#;
        assert_eq!(result(embed(), vector), ("[0.10, -1e-3]".into(), Some(Tokens { prompt: 2, completion: 0 })));
        let tools = r#"{"choices":[{"message":{"content":null,"tool_calls":[]}}]}"#;
        assert_eq!(result(chat(), tools).0, tools);
        assert_eq!(result(chat(), "a program's answer").0, "a program's answer");
    }
}
