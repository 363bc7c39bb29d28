//! Shows the balancers of any process live in a terminal, from the JSON of its page (feature `inspect`).
//!
//! ```text
//! cargo run --features inspect --example top -- http://127.0.0.1:9090/debug/tower-headless
//! ```
//!
//! Pods in trouble come first. If the process is gone, its last reading stays, and it is asked again and again.

mod app;
mod explain;
mod reader;
#[cfg(test)]
mod tests;
mod view;

use std::{io, time::Duration};

use clap::Parser;
use ratatui::{
    DefaultTerminal,
    crossterm::event::{self, Event, KeyEventKind},
};

use app::App;
use reader::Reader;

const ABOUT: &str = "\
Shows the balancers of a process, live: which pods get requests, which don't and
why. The process serves the crate's page (feature inspect) at the URL.

Keys: arrows, Page Up and Down select a pod, Enter shows all of it, Tab shows
the next balancer, q ends.";

/// How soon a key, or a reading, shows.
const TICK: Duration = Duration::from_millis(100);

#[derive(Parser)]
#[command(
    name = "top",
    about = ABOUT,
    override_usage = "cargo run --features inspect --example top -- <URL>"
)]
struct Args {
    /// Of the page: http://127.0.0.1:9090/debug/tower-headless
    url: reqwest::Url,
}

fn main() -> io::Result<()> {
    let url = Args::parse().url;
    let reader = Reader::start(url.clone());
    let mut app = App::new(url.to_string());
    // ratatui restores the terminal at the end, and before a panic's message.
    let mut terminal = ratatui::init();
    let ended = run(&mut terminal, &mut app, &reader);
    ratatui::restore();
    ended
}

fn run(terminal: &mut DefaultTerminal, app: &mut App, reader: &Reader) -> io::Result<()> {
    while !app.is_over {
        for reading in reader.readings() {
            app.read(reading);
        }
        terminal.draw(|frame| view::draw(frame, app))?;
        if !event::poll(TICK)? {
            continue;
        }
        if let Event::Key(key) = event::read()?
            && key.kind == KeyEventKind::Press
        {
            app.press(key);
        }
    }
    Ok(())
}
