//! The keeper alone, for the tests of this crate. In the product it is the `sheaf` binary itself that becomes one.

fn main() -> std::process::ExitCode {
    sheaf_worker::keeper::main()
}
