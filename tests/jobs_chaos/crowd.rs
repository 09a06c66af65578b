//! All who ask.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::book::{Asking, Book, open};
use crate::caller::ask_by_queue;
use crate::clerk::ask_over_http;
use crate::cluster::{Cluster, VHOST};

/// Users of the broker that ask.
const TENANTS: [&str; 2] = ["acme", "mallory"];

/// The name of those who ask over HTTP, without a key.
const OVER_HTTP: &str = "http";

/// How many ask over HTTP, each one thing at a time.
const CLERKS: usize = 6;

/// All who ask.
pub(crate) struct Crowd {
    books: Vec<Arc<Mutex<Book>>>,
    asking: watch::Sender<Asking>,
    /// They end with this.
    _tasks: JoinSet<()>,
}

impl Crowd {
    /// Begins to ask.
    pub(crate) fn start(cluster: &Cluster) -> Self {
        let (asking, asked) = watch::channel(Asking::SomeTwice);
        let mut tasks = JoinSet::new();
        let book_of = |name| Arc::new(Mutex::new(Book::of(name)));
        let mut books = Vec::new();
        for tenant in TENANTS {
            let book = book_of(tenant);
            tasks.spawn(ask_by_queue(cluster.broker.url(tenant, VHOST), Arc::clone(&book), asked.clone()));
            books.push(book);
        }
        let book = book_of(OVER_HTTP);
        let workers: Arc<[SocketAddr]> = cluster.addresses().into();
        for clerk in 0..CLERKS {
            tasks.spawn(ask_over_http(clerk, Arc::clone(&workers), Arc::clone(&book), asked.clone()));
        }
        books.push(book);
        Self { books, asking, _tasks: tasks }
    }

    /// What they ask from now on.
    pub(crate) fn ask(&self, asking: Asking) {
        self.asking.send_replace(asking);
    }

    /// Their books, which nobody writes in meanwhile.
    pub(crate) fn books(&self) -> Vec<MutexGuard<'_, Book>> {
        self.books.iter().map(|book| open(book)).collect()
    }

    /// Jobs without an answer.
    pub(crate) fn open(&self) -> usize {
        self.books().iter().map(|book| book.open()).sum()
    }

    /// Jobs that were promised an answer.
    pub(crate) fn confirmed(&self) -> usize {
        self.books().iter().map(|book| book.confirmed()).sum()
    }

    /// How far they are.
    pub(crate) fn progress(&self) -> String {
        let of = |book: &MutexGuard<'_, Book>| {
            let counts = book.counts();
            format!("{} asked {} and heard {}; ", book.tenant(), counts.asked, counts.replies)
        };
        self.books().iter().map(of).collect()
    }
}
