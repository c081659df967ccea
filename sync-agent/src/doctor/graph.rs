//! Where a graph of machines is weak: machines and links whose loss parts it. Pure, without recursion.

use std::collections::BTreeSet;

/// An undirected graph over the numbers below `nodes`, without loops and with at most one edge between two.
#[derive(Debug, Clone, Default)]
pub(super) struct Graph {
    neighbours: Vec<Vec<usize>>,
}

/// What parts a graph when it goes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Weak {
    /// Articulation points.
    pub(super) nodes: BTreeSet<usize>,
    /// Bridges, the smaller number first.
    pub(super) edges: BTreeSet<(usize, usize)>,
}

/// A node under way: who led there, and which of its neighbours comes next.
struct Visit {
    node: usize,
    from: Option<usize>,
    next: usize,
}

impl Graph {
    /// Of edges in any order, told as often as one likes.
    pub(super) fn new(nodes: usize, edges: impl IntoIterator<Item = (usize, usize)>) -> Graph {
        let edges: BTreeSet<(usize, usize)> = edges.into_iter().map(|(a, b)| (a.min(b), a.max(b))).collect();
        let mut neighbours = vec![Vec::new(); nodes];
        for (a, b) in edges.into_iter().filter(|(a, b)| a != b) {
            neighbours[a].push(b);
            neighbours[b].push(a);
        }
        Graph { neighbours }
    }

    /// Whom a node is linked with.
    pub(super) fn neighbours(&self, node: usize) -> &[usize] {
        &self.neighbours[node]
    }

    /// The connected parts, as they are without one of the nodes; each in order, in the order of their first nodes.
    pub(super) fn parts(&self, without: Option<usize>) -> Vec<Vec<usize>> {
        let mut seen = vec![false; self.neighbours.len()];
        if let Some(without) = without {
            seen[without] = true;
        }
        let mut parts = Vec::new();
        for first in 0..seen.len() {
            if seen[first] {
                continue;
            }
            seen[first] = true;
            let (mut part, mut at) = (vec![first], 0);
            while let Some(node) = part.get(at).copied() {
                at += 1;
                for &to in &self.neighbours[node] {
                    if !std::mem::replace(&mut seen[to], true) {
                        part.push(to);
                    }
                }
            }
            part.sort_unstable();
            parts.push(part);
        }
        parts
    }

    /// Articulation points and bridges, by the numbers in which a search in depth reaches the nodes (Hopcroft and Tarjan, "Efficient
    /// algorithms for graph manipulation", 1973).
    pub(super) fn weak(&self) -> Weak {
        let nodes = self.neighbours.len();
        let mut weak = Weak::default();
        // When a node was reached, from 1; and the earliest that it, or what was reached through it, has an edge to.
        let (mut order, mut low, mut clock) = (vec![0_usize; nodes], vec![0_usize; nodes], 0);
        for root in 0..nodes {
            if order[root] != 0 {
                continue;
            }
            let (mut branches, mut stack) = (0, vec![Visit { node: root, from: None, next: 0 }]);
            clock += 1;
            (order[root], low[root]) = (clock, clock);
            while let Some(visit) = stack.last_mut() {
                let (node, from) = (visit.node, visit.from);
                match self.neighbours[node].get(visit.next).copied() {
                    Some(to) => {
                        visit.next += 1;
                        if order[to] == 0 {
                            clock += 1;
                            (order[to], low[to]) = (clock, clock);
                            branches += usize::from(node == root);
                            stack.push(Visit { node: to, from: Some(node), next: 0 });
                        } else if from != Some(to) {
                            low[node] = low[node].min(order[to]);
                        }
                    }
                    None => {
                        stack.pop();
                        let Some(from) = from else { continue };
                        low[from] = low[from].min(low[node]);
                        if low[node] > order[from] {
                            weak.edges.insert((from.min(node), from.max(node)));
                        }
                        if from != root && low[node] >= order[from] {
                            weak.nodes.insert(from);
                        }
                    }
                }
            }
            if branches > 1 {
                weak.nodes.insert(root);
            }
        }
        weak
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn weak(nodes: usize, edges: &[(usize, usize)]) -> (Vec<usize>, Vec<(usize, usize)>) {
        let weak = Graph::new(nodes, edges.iter().copied()).weak();
        (weak.nodes.into_iter().collect(), weak.edges.into_iter().collect())
    }

    #[test]
    fn the_middle_of_a_line_and_every_link_of_it_part_it() {
        assert_eq!(weak(3, &[(0, 2), (2, 1)]), (vec![2], vec![(0, 2), (1, 2)]));
        assert_eq!(weak(2, &[(0, 1)]), (vec![], vec![(0, 1)]));
        assert_eq!(weak(3, &[(0, 1), (1, 2), (2, 0)]), (vec![], vec![]));
        assert_eq!(weak(4, &[(0, 1), (0, 2), (0, 3)]), (vec![0], vec![(0, 1), (0, 2), (0, 3)]));
        // Two rings that share one machine.
        assert_eq!(weak(5, &[(0, 1), (1, 2), (2, 0), (2, 3), (3, 4), (4, 2)]), (vec![2], vec![]));
        // Two rings and one link between them.
        let rings = [(0, 1), (1, 2), (2, 0), (2, 3), (3, 4), (4, 5), (5, 3)];
        assert_eq!(weak(6, &rings), (vec![2, 3], vec![(2, 3)]));
        assert_eq!(weak(3, &[]), (vec![], vec![]));
        assert_eq!(weak(0, &[]), (vec![], vec![]));
    }

    #[test]
    fn an_edge_told_twice_and_a_loop_change_nothing() {
        assert_eq!(weak(3, &[(0, 1), (1, 0), (0, 1), (1, 1), (1, 2)]), (vec![1], vec![(0, 1), (1, 2)]));
    }

    #[test]
    fn a_long_line_needs_no_stack() {
        let line: Vec<_> = (1..100_000).map(|at| (at - 1, at)).collect();
        let (nodes, edges) = weak(100_000, &line);
        assert_eq!((nodes.len(), edges.len()), (99_998, 99_999));
    }

    proptest! {
        #[test]
        fn a_node_or_an_edge_is_weak_if_and_only_if_its_removal_makes_more_parts(
            nodes in 1_usize..12,
            edges in prop::collection::vec((0_usize..12, 0_usize..12), 0..30),
        ) {
            let edges: BTreeSet<(usize, usize)> =
                edges.into_iter().filter(|(a, b)| a < b && *b < nodes).collect();
            let graph = Graph::new(nodes, edges.iter().copied());
            let whole = graph.parts(None).len();
            let mut expected = Weak::default();
            for node in 0..nodes {
                let alone = usize::from(graph.neighbours(node).is_empty());
                if graph.parts(Some(node)).len() > whole - alone {
                    expected.nodes.insert(node);
                }
            }
            for edge in &edges {
                let rest = edges.iter().copied().filter(|other| other != edge);
                if Graph::new(nodes, rest).parts(None).len() > whole {
                    expected.edges.insert(*edge);
                }
            }
            prop_assert_eq!(graph.weak(), expected);
        }
    }
}
