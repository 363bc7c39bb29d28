//! What requests and broadcasts report to the background task, and ask of it.

use tokio::time::Instant;

use super::{
    super::{part::Part, shared::Event},
    Driver,
};
use crate::{discovery::Discovery, endpoint::Endpoint};

impl<D, S, M> Driver<D, S, M>
where
    D: Discovery,
    S: Clone + Send + 'static,
    M: FnMut(&Endpoint) -> S,
{
    /// Handles all events that there are now. Health and the near endpoints' share are reviewed once after them,
    /// because a large set that refuses makes an event for each endpoint.
    pub(super) fn on_events(&mut self, first: Event<S>) {
        self.has_heard = true;
        let mut is_of_endpoints = first.is_of_endpoint();
        // Not the events that come meanwhile: they may never end.
        let more = self.events.len();
        self.on_event(first);
        for _ in 0..more {
            let Ok(event) = self.events.try_recv() else {
                break;
            };
            is_of_endpoints |= event.is_of_endpoint();
            self.on_event(event);
        }
        if is_of_endpoints {
            self.review();
            self.shared.current.load().recount();
        }
    }

    fn on_event(&mut self, event: Event<S>) {
        match event {
            Event::Refused {
                member,
                refusal,
                ready,
            } => {
                self.tell_of_refusal(&member);
                self.attempts.set_ready(ready);
                self.discovery.refused(member.endpoint());
                self.refused(&member, refusal);
            }
            Event::Accepted(member) => self.accepted(&member),
            Event::Wanted(member, until) => {
                self.attempts.want(&mut self.registry.lives, &member, until);
            }
            Event::Asked(pod) => {
                if !self.discovery.wanted(&pod) {
                    self.shared.asked.end();
                }
            }
            Event::Named(pod, until) => {
                let part = self.part.as_mut();
                if part.is_some_and(|part| part.want(pod, until, Instant::now())) {
                    self.choose();
                }
            }
            Event::LeftOut(pod) => {
                // `fit` adapts the subset to it.
                if let Some(part) = &mut self.part {
                    part.leave_out(pod, Instant::now());
                }
            }
            Event::Heard(request) => self.unheard.push(request),
            Event::Widen(whole) => {
                if self.part.as_mut().is_some_and(Part::widen) {
                    self.choose();
                }
                // If the broadcast no longer waits, it sends `Narrow`.
                let _ = whole.send(());
            }
            Event::Narrow => {
                if self.part.as_mut().is_some_and(Part::narrow) {
                    self.choose();
                }
            }
        }
    }
}
