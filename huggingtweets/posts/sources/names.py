"""What the columns and keys of people's files are called, and by which tool. Facts, no reading.

A name is looked up by its words: `screenName`, `screen_name`, `Screen Name` and the key
`screen_name` of an object `user` are told apart only where that matters.
"""

import re
from enum import IntEnum
from functools import lru_cache

_WORD = re.compile(r"[A-Z]+(?![^\W\d_A-Z])|[A-Z]?[^\W\d_A-Z]+|[0-9]+")
_MAX_NAME_CHARS = 200


def words_set(text: str) -> frozenset[str]:
    """Return the words of a text, for tables."""
    return frozenset(text.split())


@lru_cache(maxsize=1 << 14)
def words_of(name: str) -> tuple[str, ...]:
    """Return the words of a name, lower case: `author.userName` is author, user, name."""
    words = (word.lower() for word in _WORD.findall(name[:_MAX_NAME_CHARS]))
    parts = " ".join(_JOINED.get(word, word) for word in words)
    return tuple(parts.replace("re tweet", "retweet").split())  # `isReTweet`


_JOINED = {
    "screenname": "screen name", "displayname": "display name", "fullname": "full name",
    "userid": "user id", "authorid": "author id", "tweetid": "tweet id", "statusid": "status id",
    "postid": "post id", "createdat": "created at", "isretweet": "is retweet", "isrt": "is rt",
    "retweetid": "retweet id", "twitterhandle": "twitter handle", "userhandle": "user handle",
    "authorname": "author name", "authorhandle": "author handle", "reweet": "retweet",
    "tweettext": "tweet text", "fulltext": "full text", "rawcontent": "raw content",
    "retweetedstatus": "retweeted status", "preferredusername": "preferred username",
    "profileurl": "profile url", "accountname": "account name", "twitterid": "twitter id",
    "useraccount": "user account", "authorusername": "author username",
    "rtstatus": "rt status", "isreblog": "is reblog",
    "isrepost": "is repost", "isboost": "is boost",
}  # fmt: skip
"""Words that some tools write without a joint."""


# --- Who wrote it


class Who(IntEnum):
    """What a field says about the author; the lower, the surer it is the handle."""

    handle = 0
    """The handle, by a name that means nothing else: `screen_name`, `acct`."""
    username = 1
    """The handle nearly always: `username` is a display name in twitterscraper's files."""
    someone = 2
    """Handle or display name, as the tool pleases: `user`, `author`, `from`, `user_name`."""
    display = 3
    """The display name."""
    id = 4
    """The number or the key of the account."""


_ROOTS = words_set(
    # v1.1, v2, GNIP, Mastodon, Reddit, forums, tables made by hand
    "user author authors account actor owner creator poster sender from profile person member by "
    "tweeter twitterer writer publisher blogger uploader submitter attributed speaker "
    # the same in other languages, as people name the columns of their own tables
    "autor autora auteur autore usuario usuário utilisateur utente nutzer benutzer verfasser konto "
    "cuenta conta compte gebruiker kullanıcı penulis pengguna användare bruker uživatel "
    "автор пользователь користувач 作者 用户 用户名 博主 ユーザー ユーザ 投稿者 "
    "사용자 작성자 käyttäjä käyttäjänimi felhasználó felhasználónév użytkownik "
    "użytkownika المستخدم משתמש"
)
_PEOPLE = words_set(
    "influencer celebrity politician candidate senator congressperson congressman congresswoman "
    "representative journalist artist singer rapper streamer youtuber leader president deputy "
    "minister persona figure respondent participant student employee who whose byline usr uname "
    "tw acct handle username contributor page channel gebruikersnaam пользователя "
    "brand player team athlete club company companies celeb comedian philosopher writer poet mp "
    "org organization organisation airline outlet newspaper publication band bot character people "
    "whom screenname twitterer founder ceo coach driver actress wrote writes says"
)
"""What else a column of people may be called, or of what else posts."""
_NOISE = words_set(
    "twitter tweet x status post toot note core results result legacy data info details the "
    "of v1 v2 api snscrape mastodon bluesky bsky record basic common posted written tweeted "
    "submitted created str column col main meta metadata attributes "
    "properties fields payload"
)
"""Words around a name that change nothing: `tweet_author`, `core.user_results.result.legacy`."""
NEVER = words_set(
    "reply replies replied replying replyto repliedto mention mentions mentioned retweet "
    "retweets retweeted retweeter rt quoted quote quotes quoting to recipient receiver "
    "referenced reference references includes entities parent conversation thread "
    "liked liker favorited original via reblog reblogged reblogs boosted boost booster shared "
    "share announce renote repost reposted reposter embed embeds viewer friend follower followers "
    "following withheld"
)
"""What is called so is about somebody else: a reply's receiver, a retweet's or a quote's author."""
FOREIGN = NEVER | words_set(
    "target subject contributors media attachment attachments place geo poll card matching self "
    "labels edit context object obj app application client generator badges relationship "
    "relationships"
)
"""These are no author by their names, but their values may tell one: `subject_handle`."""
NO_AUTHORS = words_set(
    "lang language locale source client device label labels category topic type kind class "
    "sentiment hashtag hashtags tag tags place country city location id ids query keyword keywords "
    "search platform service via lists version format state region month day date year hour time "
    "timezone tz weekday quarter season media score emotion mood feeling tone stance polarity "
    "gender genre style split fold subset partition url domain visibility privacy audience reason "
    "priority rating grade level theme subtopic verified truncated possibly sensitive currency "
    "unit method settings annotation intent valence arousal sarcasm irony toxicity hate offensive "
    "spam bool flag color colour geo coordinates"
)
"""Words in the names of columns whose few short values are not people."""
_LEAVES = {
    Who.handle: "screen name|handle|acct|preferred username|sn|at name|screen names|at handle",
    Who.username: "username|unique id|login",
    Who.someone: "user name|nick|nickname|slug|value|label|url|link|profile url|uri|href|page|"
    "permalink|profile link|web url|nick name|user",
    Who.display: "name|display name|full name|real name|title|nombre|nom",
    Who.id: "id|uid|did|rest id|numeric id|key|uuid|pk|ids|number|no|nr|user id|guid",
}
_WHO_LEAVES = {leaf: who for who, leaves in _LEAVES.items() for leaf in leaves.split("|")}
_BARE = {  # without a word for a person before them
    "screen name": Who.handle, "handle": Who.handle, "acct": Who.handle, "sn": Who.handle,
    "preferred username": Who.handle, "at name": Who.handle, "username": Who.username,
    "nick name": Who.someone,
    "user name": Who.someone, "nick": Who.someone, "nickname": Who.someone, "name": Who.display,
    "display name": Who.display, "full name": Who.display, "real name": Who.display, "uid": Who.id,
    "did": Who.id, "login": Who.username, "unique id": Who.username,
}  # fmt: skip


@lru_cache(maxsize=1 << 14)
def who_role(name: str) -> Who | None:
    """Return what a column or key (dotted where nested) says about a record's author, if anything.

    200 names that tools write are in `tests/posts/sources/author_names.tsv`.
    """
    words = words_of(name)
    if not words or FOREIGN.intersection(words):
        return None
    kept = [word for word in words if word not in _NOISE]
    if not kept:
        return None
    phrase = " ".join(kept)
    if phrase in _BARE:
        return _BARE[phrase]
    for size in range(len(kept)):
        roots, leaf = kept[: len(kept) - size], " ".join(kept[len(kept) - size :])
        if all(word in _ROOTS or word == "name" for word in roots) and roots[0] in _ROOTS:
            if not leaf:
                return Who.someone if "name" not in roots else _of_name(roots)
            if leaf in _WHO_LEAVES:
                return _WHO_LEAVES[leaf]
    return None


@lru_cache(maxsize=1 << 14)
def may_name_people(name: str) -> bool:
    """Whether a column that no table knows is called as if it held people: `post_source_handle`."""
    words = [word for word in words_of(name) if word not in _NOISE and not word.isdecimal()]
    return words[-1:] != [] and not {words[-1], words[-1].removesuffix("s")}.isdisjoint(
        _ROOTS | _PEOPLE
    )


@lru_cache(maxsize=1 << 14)
def is_of_profile(name: str) -> bool:
    """Whether a column says of its author what hardly changes: `author_description`, `brand_id`."""
    words = words_of(name)
    if words[-1:] == ("id",):
        return may_name_people(name[:-2])
    return not (_ROOTS.isdisjoint(words) or _PROFILE.isdisjoint(words))


_PROFILE = words_set("description bio avatar created joined birthday")


def _of_name(roots: list[str]) -> Who | None:
    """`user_name` may be either, `author_name` is the name, `author.user.name` as well."""
    return Who.display if roots[-2:] != ["user", "name"] else Who.someone


# --- What it says, which it is, when it was written

TEXTS = (
    "note tweet text", "note tweet note tweet results result text",  # X's long posts
    "extended tweet full text", "full text", "raw content",  # X v1.1; snscrape, twscrape
    "text", "tweet text", "tweet", "tweet content", "content", "body",  # v2; twint; GNIP
    "tweet full text", "post text", "post content", "post", "message", "status text", "status",
    "rendered content", "toot", "caption", "tweets", "posts", "texts", "texto", "texte",
    "contenido", "content text", "content html", "note text", "clean text", "tweet body",
    "post body", "note", "comment",
)  # fmt: skip
"""Of several, the first counts."""
IDS = (
    "id str", "id", "tweet id", "status id", "post id", "rest id", "tweet id str", "uri",
    "id number",
    "item id", "record id",
)  # fmt: skip
DATES = (
    "created at", "date", "timestamp", "datetime", "created", "time", "published at", "published",
    "posted time", "posted at", "tweet created at", "tweet date", "date created", "created time",
    "created utc", "created date", "date time", "post date", "tweet time", "indexed at", "when",
)  # fmt: skip
_WRAPPERS = (
    "legacy", "record", "value", "data", "node", "result", "item", "tweet", "status", "post",
    "attributes", "fields", "payload",
)  # fmt: skip


def rank_of(name: str, names: tuple[str, ...]) -> int | None:
    """Return the place of a name in a list, wrappers before it left out; None: it is not in it."""
    words = words_of(name)
    while words:
        phrase = " ".join(words)
        if phrase in names:
            return names.index(phrase)
        if words[0] not in _WRAPPERS:
            return None
        words = words[1:]
    return None


# --- Is it theirs


class Mark(IntEnum):
    """How a column tells a retweet, repost, boost or share."""

    flag = 0
    """Yes or no."""
    presence = 1
    """Something about the original, empty where there is none: Hydrator's `retweet_id`."""
    kind = 2
    """A word for the kind of post: `tweet_type`, GNIP's `verb`."""
    references = 3
    """X v2's `referenced_tweets`."""
    unsure = 4
    """Looks like one, and means something else or is not known: told, not used."""


_SHARING = words_set(
    "retweet retweeted retweets retweeting rt rts repost reposted reposts reblog reblogged "
    "reblogs boost boosted boosts renote reshare reshared announce announced share shares shared "
    "forward forwarded fwd "
    "retuit retuiteado repostado compartido compartilhado partage partagé geteilt "
    "ретвит перепост репост リツイート リポスト 转发 转推 리트윗"
)
_KINDS = frozenset(
    ("tweet type", "post type", "type", "verb", "kind", "status type", "item type", "activity type",
     "action", "message type", "tweet kind", "post kind", "tweettype", "entry type", "typename",
     "reason type", "content type")
)  # fmt: skip
_COUNTED = words_set(
    "count counts num number n total metrics rate freq likes favorites favourites avg mean "
    "per likelihood able sum replies nb nbr"
)
_CALLERS = words_set("current viewer me my viewed caller can allow")
"""About who asked, not about the post: `current_user_retweet`, `viewer.repost`."""
_OF_ORIGINAL = words_set(
    "id ids str status tweet post user from by of url link date at created time name screen "
    "author handle username source result results original object uri account text content "
    "full tweets timestamp referenced note toot who to item key in original owner creator "
    "display did"
)
_FLAGS = words_set("is was has es ist est flag bool boolean a an indicator yes native pure")
_VERBS = words_set("is was has")
_ABOUT_POSTS = words_set(
    "tweet post status item message of the activity entry referenced type kind"
)
_NAMES_POSTS = words_set(
    "original orig tweet post status id ids str author user poster owner screen name handle "
    "username text is"
)
_POST_WORDS = words_set("tweet status post id ids str")
_ORIGINALS = words_set("original orig origin own source")
_COUNTS_ALONE = words_set("retweets reposts boosts reblogs rts shares shared")


@lru_cache(maxsize=1 << 14)
def mark_role(name: str) -> Mark | None:
    """Return how a column tells retweets, None where it does not.

    60 that tools write are in `tests/posts/sources/retweet_marks.tsv`.
    """
    words = words_of(name)
    phrase = " ".join(words)
    if phrase in _KINDS or (
        words[-1:] in (("type",), ("kind",)) and (_ABOUT_POSTS | _SHARING).issuperset(words)
    ):
        return Mark.kind
    if phrase == "referenced tweets" or phrase == "referenced tweets type":
        return Mark.references
    rest = [word for word in words if word not in _SHARING]
    if len(rest) == len(words):
        left = [word for word in words if word not in _ORIGINALS]
        is_of_original = len(left) < len(words) and _NAMES_POSTS.issuperset(left)
        if "source" in words:  # of a post; others are the program that wrote it, or an account
            is_of_original = bool(left) and _POST_WORDS.issuperset(left)
        return Mark.unsure if is_of_original else None
    if _COUNTED.intersection(rest) or _CALLERS.intersection(rest):
        return None
    if phrase == "retweeted":  # X v1.1: whether who asked has retweeted it
        return Mark.unsure
    if len(words) == 1 and words[0] in _COUNTS_ALONE:
        return None
    if all(word in _FLAGS for word in rest):
        return Mark.flag
    if _VERBS.intersection(rest) and all(word in _FLAGS | _ABOUT_POSTS for word in rest):
        return Mark.flag  # `tweet_is_retweet`
    return Mark.presence if all(word in _OF_ORIGINAL for word in rest) else Mark.unsure


RETWEET_KINDS = words_set(
    "retweet retweeted rt repost reposted reblog boost boosted share shared announce renote "
    "native_retweet nativeretweet reasonrepost"
)
"""Words of a kind column for what somebody else wrote."""
OTHER_KINDS = words_set(
    "like liked favorite favourite follow unfollow delete block undo flag accept reject"
)
"""Words of a kind column for what is not a post."""
OWN_KINDS = words_set(
    "tweet organic original post note status reply replied_to quote quoted self_thread create "
    "thread"
)
