//! The `preStop` hook.

use std::time::Duration;

use k8s_openapi::api::core::v1::{LifecycleHandler, Pod};

use super::image;

/// How long the hook takes: `sleep`, or an `exec` of sleep, with a shell or without.
pub(super) fn pre_stop(pod: &Pod) -> Duration {
    let lifecycle = image::container(pod).lifecycle.as_ref();
    let hook = lifecycle.and_then(|lifecycle| lifecycle.pre_stop.as_ref());
    let seconds = hook.map_or(0, |hook| {
        slept(hook).unwrap_or_else(|| panic!("the node knows no hook {hook:?}"))
    });
    Duration::from_secs(seconds)
}

fn slept(hook: &LifecycleHandler) -> Option<u64> {
    if let Some(sleep) = &hook.sleep {
        return sleep.seconds.try_into().ok();
    }
    let command = hook.exec.as_ref()?.command.as_ref()?.join(" ");
    let (_, seconds) = command.split_once("sleep ")?;
    seconds.trim().parse().ok()
}
