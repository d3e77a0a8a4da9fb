//! What is asked of a model, row by row.

use std::path::PathBuf;

use clap::Args;

/// Rows made into requests.
#[derive(Debug, Args)]
pub(crate) struct PromptArgs {
    /// Ask a model this of each row: a template over its fields, as in 'Classify: {{ text }}'. A row without fields is
    /// {{ text }}. The result is the text of the answer.
    #[arg(long, value_name = "TEMPLATE", requires = "model", conflicts_with = "embed")]
    pub prompt: Option<String>,
    /// What the model is told before; a template too.
    #[arg(long, value_name = "TEMPLATE", requires = "prompt")]
    pub system: Option<String>,
    /// JSON Schema that an answer must keep to: one that does not is thrown away, and asked for again.
    #[arg(long, value_name = "FILE", requires = "prompt")]
    pub schema: Option<PathBuf>,
    /// Longest answer.
    #[arg(long, value_name = "TOKENS", requires = "prompt", value_parser = clap::value_parser!(u32).range(1..))]
    pub max_tokens: Option<u32>,
    /// How freely the model chooses its words, from 0.
    #[arg(long, value_name = "NUMBER", requires = "prompt")]
    pub temperature: Option<f64>,
    /// Embed this text of each row: a template, as in '{{ title }}: {{ text }}'. The result is the vector.
    #[arg(long, value_name = "TEMPLATE")]
    pub embed: Option<String>,
    /// A further field of each request, as in top_p=0.9 or stop='["\n"]'; JSON, or else a text.
    #[arg(long = "param", value_name = "NAME=VALUE")]
    pub params: Vec<String>,
}
