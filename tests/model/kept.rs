//! Runs that once broke promises, and must not break them again.

// All names, so that what is printed can be pasted.
#[allow(unused_imports)]
use crate::plan::{
    By::*, Checks::*, Config, Ending::*, Locality::*, Mood::*, Names::*, PolicyName::*, Ready::*,
    Step, Take::*, hosts,
};

/// A run.
pub(crate) struct Kept {
    /// The fault.
    pub(crate) name: &'static str,
    pub(crate) config: Config,
    pub(crate) steps: &'static [Step],
}

pub(crate) const KEPT: &[Kept] = &[
    Kept {
        name: "the attempt to reach a pod that left ends, and the next pod at its address is lost",
        config: Config::PLAIN,
        steps: &[
            Step::Set(hosts(&[1])),
            Step::Behave(1, Refuse),
            Step::Send(hosts(&[]), Drop),
            Step::Behave(1, Stall),
            Step::Advance(275),
            Step::Set(hosts(&[])),
            Step::Set(hosts(&[1])),
            Step::Behave(1, Refuse),
            Step::Send(hosts(&[]), Drop),
        ],
    },
    Kept {
        name: "the same, while another pod keeps the service going",
        config: Config::PLAIN,
        steps: &[
            Step::Set(hosts(&[2])),
            Step::Behave(2, Refuse),
            Step::Send(hosts(&[]), Drop),
            Step::Behave(2, Stall),
            Step::Advance(275),
            Step::Set(hosts(&[])),
            Step::Set(hosts(&[1, 2])),
            Step::Behave(2, HandBack),
            Step::Send(hosts(&[]), Drop),
        ],
    },
    Kept {
        name: "the same, and the only pod hands requests back: all fail for ever",
        config: Config::PLAIN,
        steps: &[
            Step::Set(hosts(&[1])),
            Step::Behave(1, HandBack),
            Step::Send(hosts(&[]), Drop),
            Step::Behave(1, Stall),
            Step::Advance(250),
            Step::Set(hosts(&[])),
            Step::Set(hosts(&[1])),
            Step::Behave(1, HandBack),
            Step::Send(hosts(&[]), Drop),
        ],
    },
    Kept {
        name: "the same, and a request that waits for readiness waits for ever",
        config: Config {
            ready: Wait,
            ..Config::PLAIN
        },
        steps: &[
            Step::Set(hosts(&[1])),
            Step::Behave(1, Refuse),
            Step::Send(hosts(&[]), Drop),
            Step::Behave(1, Stall),
            Step::Advance(300),
            Step::Set(hosts(&[])),
            Step::Set(hosts(&[1])),
            Step::Behave(1, HandBack),
            Step::Send(hosts(&[]), Drop),
        ],
    },
    Kept {
        name: "five streaming responses make a pod unresponsive",
        config: Config {
            policy: PowerOfTwo,
            seed: 89,
            ..Config::PLAIN
        },
        steps: &[
            Step::Set(hosts(&[2, 3])),
            Step::Behave(2, Stream),
            Step::Send(hosts(&[]), Keep),
            Step::Send(hosts(&[1, 3]), Keep),
            Step::Send(hosts(&[1, 3]), Keep),
            Step::Send(hosts(&[1, 3]), Keep),
            Step::Send(hosts(&[1, 3]), Keep),
            Step::Traffic(12, 20, Drop),
        ],
    },
    Kept {
        name: "a trial that is answered 503, with a long body, brings its pod back",
        config: Config {
            min_ejection: 200,
            ..Config::PLAIN
        },
        steps: &[
            Step::Set(hosts(&[2, 3])),
            Step::Behave(2, StreamUnavailable),
            Step::Traffic(10, 1, Drop),
            Step::Advance(200),
            Step::Send(hosts(&[]), Keep),
            Step::Advance(1_000),
        ],
    },
    Kept {
        name: "a pod that left while it was ejected is still ejected when it returns",
        config: Config {
            policy: LeastConnections,
            failures: 1,
            ..Config::PLAIN
        },
        steps: &[
            Step::Set(hosts(&[2, 4])),
            Step::Behave(2, Unavailable),
            Step::Traffic(4, 1, Drop),
            Step::Set(hosts(&[4])),
            Step::Set(hosts(&[2, 4])),
        ],
    },
    Kept {
        name: "what a pod failed in its last life ejects it in the next one",
        config: Config {
            failures: 1,
            ..Config::PLAIN
        },
        steps: &[
            Step::Set(hosts(&[1, 3])),
            Step::Behave(1, StreamUnavailable),
            Step::Traffic(2, 1, Keep),
            Step::Set(hosts(&[3])),
            Step::Set(hosts(&[1, 3])),
            Step::Release(0),
            Step::Traffic(2, 1, Drop),
        ],
    },
    // The model was wrong: no pod is newly ejected.
    Kept {
        name: "an ejection from when there were more pods shows again after a panic",
        config: Config {
            failures: 1,
            max_ejected: 0.34,
            ..Config::PLAIN
        },
        steps: &[
            Step::Set(hosts(&[2, 3, 4])),
            Step::Behave(4, Error),
            Step::Send(hosts(&[]), Drop),
            Step::Set(hosts(&[3, 4])),
            Step::Behave(3, Refuse),
            Step::Send(hosts(&[]), Drop),
        ],
    },
    Kept {
        name: "a trial of a pod that is ejected and refuses is given up after a long time, and the pod is lost",
        config: Config {
            failures: 1,
            min_ejection: 200,
            ..Config::PLAIN
        },
        steps: &[
            Step::Set(hosts(&[2, 3])),
            Step::Behave(3, Error),
            Step::Send(hosts(&[]), Drop),
            Step::Advance(250),
            Step::Behave(3, HandBack),
            Step::Send(hosts(&[]), Drop),
            Step::Behave(3, Hang),
            Step::Advance(250),
            Step::Send(hosts(&[]), Drop),
            Step::Advance(50),
            Step::GiveUp(114),
        ],
    },
    // The model was wrong: there was no other pod when the request was sent.
    Kept {
        name: "an avoided pod has the request, and another one joins before the answer",
        config: Config::PLAIN,
        steps: &[
            Step::Set(hosts(&[2])),
            Step::Behave(2, Hang),
            Step::Send(hosts(&[2]), Drop),
            Step::Set(hosts(&[1, 2])),
            Step::Behave(2, Well),
        ],
    },
    // The model was wrong: that pod accepts requests, so this request waits for it like any other.
    Kept {
        name: "a request for one pod waits until it is ready, although requests never wait",
        config: Config {
            ready: FailFast,
            ..Config::PLAIN
        },
        steps: &[
            Step::Set(hosts(&[1])),
            Step::Behave(1, Stall),
            Step::SendTo(Name, 1, Keep),
            Step::Advance(2),
        ],
    },
    Kept {
        name: "all of the subset refuse but the one that is left out, and no pod takes its place",
        config: Config {
            seed: 271,
            subset: 2,
            ..Config::PLAIN
        },
        steps: &[
            Step::Set(hosts(&[1, 2, 3])),
            Step::Advance(1_101),
            Step::Behave(2, HandBack),
            Step::SendTo(OthersByAddress, 1, Keep),
            Step::Advance(7_000),
        ],
    },
    Kept {
        name: "the subset is the pod that is left out, and there seems to be no other",
        config: Config {
            subset: 1,
            ..Config::PLAIN
        },
        steps: &[
            Step::Set(hosts(&[1, 2, 3])),
            Step::SendTo(OthersByName, 1, Drop),
            Step::SendTo(OthersByName, 2, Drop),
            Step::SendTo(OthersByName, 3, Drop),
        ],
    },
    Kept {
        name: "requests never wait, and a pod outside of the subset seems not to be there",
        config: Config {
            ready: FailFast,
            subset: 1,
            ..Config::PLAIN
        },
        steps: &[
            Step::Set(hosts(&[1, 2])),
            Step::SendTo(Name, 1, Drop),
            Step::SendTo(Name, 2, Drop),
        ],
    },
    Kept {
        name: "requests never wait, and all fail before substitutes join the subset",
        config: Config {
            ready: FailFast,
            subset: 2,
            ..Config::PLAIN
        },
        steps: &[
            Step::Set(hosts(&[1, 2, 3])),
            Step::Advance(7_000),
            Step::Behave(1, Refuse),
            Step::Behave(2, Refuse),
            Step::Send(hosts(&[]), Drop),
            Step::Behave(1, Well),
            Step::Behave(2, Well),
            Step::Advance(7_000),
            Step::Behave(1, Refuse),
            Step::Behave(3, Refuse),
            Step::Send(hosts(&[]), Drop),
            Step::Behave(1, Well),
            Step::Behave(3, Well),
            Step::Advance(7_000),
            Step::Behave(2, Refuse),
            Step::Behave(3, Refuse),
            Step::Send(hosts(&[]), Drop),
        ],
    },
    // The model was wrong: a request for a pod goes to it even if its checks fail.
    Kept {
        name: "a pod that has passed no check yet gets the requests for it",
        config: Config {
            checks: First,
            subset: 2,
            ..Config::PLAIN
        },
        steps: &[
            Step::Set(hosts(&[1, 2, 3])),
            Step::Check(2, false),
            Step::SendTo(Name, 2, Drop),
        ],
    },
    // The model was wrong: the pod is asked twice, once in each life, and its turn came once.
    Kept {
        name: "a pod that leaves and returns while a broadcast waits for it is out of time in both lives",
        config: Config::PLAIN,
        steps: &[
            Step::Set(hosts(&[1])),
            Step::Behave(1, Refuse),
            Step::Broadcast(1, 500, true),
            Step::Behave(1, Hang),
            Step::Advance(300),
            Step::Set(hosts(&[])),
            Step::Set(hosts(&[1])),
            Step::Advance(218),
        ],
    },
    Kept {
        name: "a substitute was there before and refuses, and no other one joins the subset",
        config: Config {
            seed: 115,
            subset: 1,
            ..Config::PLAIN
        },
        steps: &[
            Step::Set(hosts(&[2, 3, 4])),
            Step::Reschedule(4, 3),
            Step::Behave(2, HandBack),
            Step::SendTo(Name, 2, Keep),
            Step::SendTo(Name, 4, Keep),
            Step::GiveUp(100),
            Step::Behave(4, Refuse),
            Step::Send(hosts(&[]), Drop),
        ],
    },
    Kept {
        name: "a substitute that is asked for leaves and joins anew each time that it refuses, and no other one joins",
        config: Config {
            seed: 861,
            subset: 1,
            failures: 1,
            ..Config::PLAIN
        },
        steps: &[
            Step::Set(hosts(&[1, 2, 4])),
            Step::Send(hosts(&[]), Drop),
            Step::Behave(2, Hang),
            Step::Traffic(4, 20, Drop),
            Step::GiveUp(121),
            Step::SendTo(Name, 1, Drop),
            Step::Behave(4, Refuse),
            Step::SendTo(Name, 4, Drop),
        ],
    },
    // The model was wrong: a pod that has to pass a check first, and has failed it, needs a substitute.
    Kept {
        name: "a pod that fails its first check has a substitute",
        config: Config {
            seed: 273,
            checks: First,
            names: Untold,
            subset: 1,
            ..Config::PLAIN
        },
        steps: &[
            Step::Set(hosts(&[1, 2])),
            Step::Check(1, false),
            Step::Set(hosts(&[1, 3])),
        ],
    },
    Kept {
        name: "a request for a pod outside of the subset makes room for a key's",
        config: Config {
            policy: BoundedHash,
            seed: 516,
            subset: 3,
            ..Config::PLAIN
        },
        steps: &[
            Step::Set(hosts(&[2, 4, 5, 6])),
            Step::Behave(2, Stream),
            Step::Behave(4, Stream),
            Step::SendTo(Name, 4, Keep),
            Step::SendKey(11, Keep),
            Step::SendKey(11, Keep),
        ],
    },
    Kept {
        name: "pods outside of the subset are ejected without limit, and count once the subset's has no weight",
        config: Config {
            subset: 1,
            failures: 1,
            panic_threshold: 0.0,
            ..Config::PLAIN
        },
        steps: &[
            Step::Set(hosts(&[1, 2, 3, 4])),
            Step::Behave(2, Slow(2000)),
            Step::Broadcast(1, 0, false),
            Step::Behave(4, Unavailable),
            Step::Weight(2, 0),
            Step::Behave(1, Hang),
            Step::Behave(3, Hang),
            Step::Broadcast(64, 0, false),
            Step::Advance(3500),
        ],
    },
    Kept {
        name: "a pod outside of the subset gets no far pod's requests",
        config: Config {
            locality: PreferZone,
            subset: 2,
            ..Config::PLAIN
        },
        steps: &[
            Step::Set(hosts(&[1, 2, 3])),
            Step::Zone(2, 1),
            Step::Send(hosts(&[]), Drop),
            Step::SendTo(Name, 3, Keep),
            Step::Behave(1, Refuse),
            Step::Send(hosts(&[]), Drop),
            Step::Traffic(10, 1, Drop),
        ],
    },
    Kept {
        name: "a key tries a pod that isn't its own if no other is left",
        config: Config {
            policy: BoundedHash,
            names: Untold,
            ready: FailFast,
            ..Config::PLAIN
        },
        steps: &[
            Step::Set(hosts(&[1, 2])),
            Step::Behave(1, HandBack),
            Step::Behave(2, HandBack),
            Step::Send(hosts(&[]), Drop),
            Step::Behave(2, Well),
            Step::Advance(7000),
            Step::SendKey(0, Read),
        ],
    },
    Kept {
        name: "a substitute that is asked for stays, without weight, once it isn't needed",
        config: Config {
            policy: LeastConnections,
            seed: 316,
            subset: 1,
            failures: 1,
            max_ejected: 0.34,
            ..Config::PLAIN
        },
        steps: &[
            Step::Send(hosts(&[]), Drop),
            Step::Send(hosts(&[]), Drop),
            Step::Set(hosts(&[2, 3])),
            Step::SendTo(Name, 2, Read),
            Step::Send(hosts(&[]), Drop),
            Step::SendTo(OthersByName, 3, Read),
            Step::Behave(3, Error),
            Step::Traffic(17, 0, Drop),
        ],
    },
    Kept {
        name: "substitutes that are no longer needed stay for a while, though pods had no weight meanwhile",
        config: Config {
            seed: 345,
            subset: 2,
            ready: FailFast,
            ..Config::PLAIN
        },
        steps: &[
            Step::Set(hosts(&[3, 4, 5, 6])),
            Step::Behave(5, HandBack),
            Step::Behave(3, Refuse),
            Step::Broadcast(64, 0, false),
            Step::Set(hosts(&[2, 4, 5, 6])),
            Step::Weight(6, 0),
        ],
    },
    Kept {
        name: "a substitute that refused is replaced at once by a pod that doesn't, so one more than needed is left",
        config: Config {
            subset: 1,
            ..Config::PLAIN
        },
        steps: &[
            Step::Set(hosts(&[1, 2, 3])),
            Step::Behave(1, HandBack),
            Step::Behave(3, Refuse),
            Step::SendTo(Name, 3, Read),
            Step::Reschedule(3, 6),
            Step::Rush,
            Step::Send(hosts(&[]), Drop),
        ],
    },
    Kept {
        name: "a far pod that a panic has brought back gets requests only if near ones leave some",
        config: Config {
            locality: Zone,
            failures: 3,
            max_ejected: 0.34,
            ..Config::PLAIN
        },
        steps: &[
            Step::Set(hosts(&[1, 2])),
            Step::Zone(2, 2),
            Step::Zone(1, 1),
            Step::Behave(2, Error),
            Step::Send(hosts(&[1]), Drop),
            Step::Send(hosts(&[1]), Drop),
            Step::SendTo(OthersByAddress, 1, Keep),
        ],
    },
];
