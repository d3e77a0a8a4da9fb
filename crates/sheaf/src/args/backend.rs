//! The server, or the model behind it, that does the work in a program's place.

use std::path::PathBuf;

use clap::Args;

/// A server that is called over HTTP.
#[derive(Debug, Args)]
pub(crate) struct BackendArgs {
    /// POST each row to this URL instead of running a program: the body of the reply is the answer.
    #[arg(long, value_name = "URL", conflicts_with_all = ["argv", "stdin", "serve", "memory", "backend"])]
    pub http: Option<String>,
    /// Send each row, which is a request, to the OpenAI-compatible API at this URL, as in http://127.0.0.1:8000/v1; or
    /// builtin:hash-embed, which embeds words by their spelling and needs no model.
    #[arg(long, value_name = "URL", conflicts_with_all = ["argv", "stdin", "serve", "memory"])]
    pub backend: Option<String>,
    /// The model, for requests that name none; also the service, unless --service names it.
    #[arg(long, value_name = "NAME")]
    pub model: Option<String>,
    /// File that holds the API key; otherwise OPENAI_API_KEY, which goes over TLS or stays on this machine.
    #[arg(long, value_name = "FILE", requires = "backend")]
    pub api_key_file: Option<PathBuf>,
    /// Certificate authorities to trust behind https://, instead of the system's: a file of certificates in PEM.
    #[arg(long, value_name = "FILE")]
    pub backend_ca: Option<PathBuf>,
}
