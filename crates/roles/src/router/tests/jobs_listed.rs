//! More jobs than one answer has room for.

use bytes::Bytes;
use sheaf_task::{Answer, BATCH_ROWS_MAX, JobId, JobInfo, JobOptions, JobSpec, Question, ToClient};

use super::super::*;
use super::world::{World, id};

fn open(world: &mut World, job: &str) {
    let spec = JobSpec {
        job: JobId(id(job)),
        name: job.to_owned(),
        service: "echo".to_owned(),
        revision: String::new(),
        nonce: Bytes::new(),
        cursor: 0,
        cursor_router: None,
        options: JobOptions::default(),
    };
    world.message("c", Inbound::OpenJob { spec, app: String::new() });
    world.sync();
}

fn submit(world: &mut World, job: &str, row: &str) {
    let (rows, generation) = (vec![world.row(job, row, row, 10)], world.sealed.1);
    world.message("c", Inbound::Submit { job: JobId(id(job)), cursor: 0, rows, generation });
    world.sync();
}

fn listed(world: &mut World) -> Vec<String> {
    let (prior, owners, view) = (None, Vec::new(), View::All);
    let outputs = world.message("c", Inbound::Ask { id: 7, question: Question::Jobs, prior, owners, view });
    let told = outputs.into_iter().find_map(|output| match output {
        Output::Send { message: Outbound::Client(told), .. } => Some(*told),
        _ => None,
    });
    let Some(ToClient::Answer { answer: Answer::Jobs(infos), .. }) = told else { panic!("no list: {told:?}") };
    infos.into_iter().map(|JobInfo { name, .. }| name).collect()
}

/// Of more jobs than an answer holds, those that something is left of are not pushed out by those that came after them.
#[test]
fn what_is_left_of_an_old_job_is_found_behind_many_that_are_settled() {
    let mut world = World::new(Limits { jobs_max: 2 * BATCH_ROWS_MAX as u32, ..Limits::default() });
    let peer = world.peer("c");
    world.handle(Event::PeerUp { peer });
    for job in ["first", "second", "third"] {
        open(&mut world, job);
    }
    submit(&mut world, "second", "a");
    let names = (0..BATCH_ROWS_MAX).map(|number| format!("n{number}")).collect::<Vec<_>>();
    names.iter().for_each(|job| open(&mut world, job));
    let newest = names[1..].iter().map(String::as_str);
    assert_eq!(listed(&mut world), ["second"].into_iter().chain(newest).collect::<Vec<_>>());
    // Where more are left than it holds, the newest of them.
    submit(&mut world, "first", "b");
    names.iter().for_each(|job| submit(&mut world, job, job));
    assert_eq!(listed(&mut world), names);
}
