"""The nodes of a tree: its tokens cut where paths branch off, each behind what is before it on its path."""

import numpy as np
from hypothesis import given, settings

from scoring.engine.nodes import Nodes, chunk_of, earlier_tokens, filled_lengths
from scoring.engine.tree import Tree
from tests.shared.trees import made, paths_of, rows, sequence_of


def way_to(nodes: Nodes, node: int) -> list[int]:
    """The tokens of a node's ancestors and its own, from the root on."""
    before = way_to(nodes, nodes.parents[node]) if nodes.parents[node] >= 0 else []
    return before + list(range(nodes.bounds[node], nodes.bounds[node + 1]))


@settings(max_examples=300, deadline=None)
@given(rows)
def test_a_tokens_path_is_its_nodes_ancestors_and_the_tokens_of_its_node_before_it(drawn):
    tree = Tree.build(*made(drawn))
    nodes = Nodes.of(tree)
    for path in paths_of(tree):
        for place, token in enumerate(path):
            node = int(np.searchsorted(nodes.bounds, token, "right")) - 1
            way = way_to(nodes, node)
            assert way[: way.index(token) + 1] == path[: place + 1]
            assert nodes.levels[node] == (nodes.levels[nodes.parents[node]] + 1 if nodes.parents[node] >= 0 else 0)


@settings(max_examples=300, deadline=None)
@given(rows)
def test_nodes_are_cut_at_branches_alone(drawn):
    tree = Tree.build(*made(drawn))
    nodes = Nodes.of(tree)
    assert nodes.bounds[0] == 0 and nodes.bounds[-1] == len(tree.ids) and (np.diff(nodes.bounds) > 0).all()
    starts = set(tree.query_bounds[:-1].tolist())
    for node, start in enumerate(nodes.bounds[:-1].tolist()):
        if start not in starts:  # another path branches off before it
            assert nodes.parents[node] == node - 1 and (nodes.parents == node - 1).sum() > 1


def test_a_segment_that_branches_off_in_the_middle_of_an_earlier_one_cuts_it():
    """1 2 3 4, 1 2 3 5 and 1 2 6: the first is cut after 2 and after 3."""
    tree = Tree.build([sequence_of(ids) for ids in ([1, 2, 3, 4], [1, 2, 3, 5], [1, 2, 6])], [[], [], []])
    nodes = Nodes.of(tree)
    assert tree.ids.tolist() == [1, 2, 3, 4, 5, 6]
    assert nodes.bounds.tolist() == [0, 2, 3, 4, 5, 6]
    assert nodes.parents.tolist() == [-1, 0, 1, 1, 0] and nodes.levels.tolist() == [0, 1, 2, 2, 1]


def test_prompts_that_share_nothing_are_nodes_of_their_own():
    tree = Tree.build([sequence_of([1, 2]), sequence_of([3]), sequence_of([1, 2])], [[], [], []], share=False)
    nodes = Nodes.of(tree)
    assert nodes.bounds.tolist() == [0, 2, 4, 5] and nodes.parents.tolist() == [-1] * 3 and not nodes.levels.any()


@settings(max_examples=200, deadline=None)
@given(rows)
def test_the_tokens_before_a_segment_are_those_before_it_on_its_path(drawn):
    tree = Tree.build(*made(drawn))
    for segment, before in enumerate(earlier_tokens(tree, 3)):
        path = tree.keys[tree.key_bounds[segment] : tree.key_bounds[segment + 1]].tolist()
        ancestors = path[: len(path) - int(np.diff(tree.query_bounds)[segment])]
        assert before.tolist() == ([-1] * 3 + ancestors)[-3:]


@settings(max_examples=200, deadline=None)
@given(rows)
def test_every_node_is_in_one_group_of_its_level_and_finds_its_parents_state(drawn):
    nodes = Nodes.of(Tree.build(*made(drawn)))
    seen: list[int] = []
    handed_on: list[int] = []  # by the level before
    for level, groups in enumerate(nodes.groups(most=40)):
        going_on: list[int] = []
        for group in groups:
            members = np.searchsorted(nodes.bounds, group.tokens[:, 0], "right") - 1
            assert group.tokens.size <= 40 or len(members) == 1
            for node, tokens, own in zip(members, group.tokens, group.own):
                expected = range(nodes.bounds[node], nodes.bounds[node + 1])
                assert tokens[own].tolist() == list(expected) and set(tokens[~own]) <= {expected[-1]}
            assert (nodes.levels[members] == level).all()
            assert [handed_on[row] for row in group.parents] == (nodes.parents[members].tolist() if level else [])
            seen += members.tolist()
            going_on += members[group.continued].tolist()
        handed_on = going_on
    assert sorted(seen) == list(range(len(nodes.parents))) and not handed_on
    assert chunk_of(16) == 16 and chunk_of(64) == chunk_of(192) == 64


def test_nodes_are_filled_up_to_whole_chunks_and_short_ones_to_shorter_ones():
    assert filled_lengths(np.array([1, 16, 17, 32, 33, 64, 65, 300])).tolist() == [16, 16, 32, 32, 64, 64, 128, 320]
