use super::*;
use crate::plan::Who;

#[test]
fn every_plan_that_is_drawn_can_be_written_and_read() {
    for seed in 0..500 {
        let plan = Plan::from_seed(seed);
        assert_eq!(Scenario::parse(&write::plan(&plan)).unwrap().plan, plan, "seed {seed}");
    }
}

#[test]
fn a_written_seed_runs_as_the_seed_does() {
    let run = |plan: &Plan| World::new(plan, None, Show::Nothing).run().hash;
    for seed in 0..10 {
        let plan = Plan::from_seed(seed);
        assert_eq!(run(&Scenario::parse(&write::plan(&plan)).unwrap().plan), run(&plan), "seed {seed}");
    }
}

#[test]
fn what_cannot_be_read_is_named_with_its_line() {
    let fails = |text: &str| {
        let error = Scenario::parse(text).unwrap_err();
        (error.line, error.reason)
    };
    let unknown = |word: &str| Reason::Unknown(word.to_owned());
    assert_eq!(fails("# words\n\nsede 7"), (3, unknown("sede")));
    assert_eq!(fails("seed 7 8"), (1, unknown("8")));
    assert_eq!(fails("seed x"), (1, Reason::NotANumber("x".to_owned())));
    assert_eq!(fails("grace 5"), (1, Reason::NotATime("5".to_owned())));
    assert_eq!(fails("grace 99999999999999999999s").1, Reason::NotATime("99999999999999999999s".to_owned()));
    assert_eq!(fails("at 1s power-off router for 1s keeps most"), (1, unknown("most")));
    assert_eq!(fails("at 1s kill"), (1, Reason::Lacks("a process")));
    assert_eq!(fails("worker\nclient rows a\nat 1s cut worker 1"), (3, Reason::NoSuch(Who::Worker(1))));
    assert_eq!(fails("worker"), (1, Reason::NoCluster));
}
