"""Everyday sentences about films, by families of patterns, with what may be written of each film.

Every line is ``expected | sentence``. ``@A``, ``@B``, ``@C`` are titles; ``[x|y]`` stands for two
sentences, one with ``x`` and one with ``y``. ``A+`` means that A was liked, ``A-`` disliked, ``As``
seen, ``Au`` not seen, ``A0`` that nothing is said of it; of several signs the first is what is
said, and the others may be written too. A title without a sign is as ``0``. In families whose name
begins with *offer* A, B and C were offered just before.
"""

TITLES = (
    "Rocky (1976)",
    "Die Hard (1988)",
    "Alien (1979)",
    "The Matrix (1999)",
    "Casablanca (1942)",
    "Jurassic Park (1993)",
    "Ghostbusters (1984)",
    "Titanic (1997)",
    "The Godfather (1972)",
    "Blade Runner (1982)",
    "Amadeus (1984)",
    "The Shining (1980)",
)
COMMON = (
    "Awesome (2006)",
    "Yes (2004)",
    "Good (2008)",
    "Frozen (2013)",
    "Kalifornia (1993)",
    "Talk to Me (2007)",
    "All the Way (2016)",
    "The Comedy (2012)",
    "Funny People (2009)",
    "Dinner (2012)",
    "It (1990)",
    "It (2017)",
    "Her (2013)",
    "The Family (2013)",
    "Friends with Kids (2011)",
    "Something Wild (1986)",
)
"""Titles of common words, which no sentence is about."""

FAMILIES = {
    "liked": """
        A+ | I [loved|really enjoyed|adore] @A
        A+ | @A [was amazing|is a masterpiece|was hilarious]
        A+ | @A is one of my [favorites|all time favourite movies]
        A+ | I thought @A was [brilliant|really good]
        A+ | Loved @A, watched it twice
        A+ | I'm a huge fan of @A
        A+ | @A blew me away
        A+ | my favorite movie is @A
        A+ | I can't get enough of @A
        A+ | I could not stop laughing, @A was hilarious
        A+ | @A never gets old
        A+ | We watched @A last night and loved it
        A+0s | @A is so much better than people say
        A+ | What a great movie @A is!
    """,
    "disliked": """
        A- | I [hated|loathe|can't stand|couldn't stand] @A
        A- | @A was [awful|so boring|a complete waste of time|terrible]
        A- | @A is [overrated|garbage|the worst movie ever]
        A-0s | @A put me to sleep
        A- | @A bored me to tears
        A- | I was really disappointed by @A
        A- | Honestly @A sucked
        A- | I walked out of @A
        A-0s | I fell asleep during @A
        A- | I couldn't get into @A
        A- | Watched @A yesterday. Awful.
        A- | I regret watching @A
        A-0s | I turned @A off after ten minutes
    """,
    "negated like": """
        A- | I didn't [like|enjoy] @A
        A- | I did not care for @A
        A- | @A was not [good|funny|my cup of tea|for me|my thing]
        A- | @A wasn't [very good|that great|any good]
        A- | I'm not [a fan of|really into] @A
        A- | I don't think @A is good
        A-0s | I never liked @A
        A-0s | I don't love @A
        A- | Never really cared for @A
        A-0s | can't say I enjoyed @A
        A-0s | @A is far from great
        A- | i dont like @A
    """,
    "negated dislike": """
        As0+ | I didn't [hate|dislike|mind] @A
        As0+ | @A wasn't [bad|terrible|boring at all]
        As0+ | I don't hate @A at all
        As0+ | @A is not as bad as people say
        As0+ | @A isn't the worst
        A+0s | @A was anything but boring
        As0+ | I never said I hated @A
    """,
    "no negation": """
        A+ | No doubt, @A is [great|wonderful]
        A+ | Not only did I love @A, I bought it
        A+ | I don't care what people say, @A is great
        A+ | Without a doubt @A is excellent
        A- | Not gonna lie, @A was bad
        A+0s | I couldn't love @A more
        A+ | Don't get me wrong, I loved @A
        A+0s | I have never loved a movie as much as @A
        A+ | I can't help but love @A
        A- | No wonder nobody came, @A was terrible
    """,
    "not my opinion": """
        A0 | My [wife|brother|best friend] loves @A
        A0 | [Critics|Most people|Everybody] hated @A
        A0 | My kids can't stand @A
        A0 | Everyone says @A is great
        A0 | I heard @A is [good|terrible]
        A0 | Nobody I know likes @A
        A0 | My dad thinks @A is the best movie ever
        A0 | @A is my wife's favorite movie
        A0 | According to critics @A is awful
        A0 | They say @A is overrated
        A0 | She said she loved @A
        A0 | @A is loved by everyone
        A-0s | My kids loved @A but I didn't
        A-0s | Everyone loves @A except me
        A+0s | My wife hated @A but I loved it
        A+ | Unlike my wife, I loved @A
        A-0s | All my friends love @A, I don't
        A+0s | My brother and I loved @A
    """,
    "several": """
        A+ B- | I loved @A [but hated|and hated] @B
        A+ B- | I liked @A but not @B
        A- B- | I liked neither @A nor @B
        A+ B- Cs0+ | I loved @A, hated @B, and @C was okay
        A+ B- | @A was great, @B was boring
        A+ B+ C+ | I love @A, @B and @C
        A+ B+ | @A and @B were both fantastic
        A- B- | Neither @A nor @B was any good
        A- B- | I didn't like @A or @B
        A+ B-0s | @A was great, @B not so much
        A+ B+ | I liked @A and @B too
        A- B+ | @A was dull. @B on the other hand was brilliant
        A+ B- C- | I enjoyed @A but @B and @C were terrible
        A+ B0-s | Unlike @B, @A was great
        A+ Bs | I loved @A and I have seen @B
        As Bu | I've seen @A but not @B
        A+ Bu | I loved @A but haven't seen @B
        A+ B+ | Loved @A. Loved @B too.
        A- B+ | @A was a mess, while @B is a masterpiece
    """,
    "comparison": """
        A+0s B0s+ | I liked @A more than @B
        A0+s B0-s | @A is better than @B
        A0+s B0s+- | I prefer @A to @B
        A0-s B0s+ | @A wasn't as good as @B
        A0+s B0 | @A is nothing like @B
        A0 B0 | @A reminds me of @B
        A0-s B0+s | @A is worse than @B
        A0 B0 | Is @A better than @B
    """,
    "seen": """
        As | I [watched|saw] @A last night
        As | I have seen @A
        As | I've already seen @A twice
        As | We saw @A in the cinema
        Au | I haven't seen @A [yet|]
        Au | I've never seen @A
        Au | never watched @A
        Au | I have yet to see @A
        Au | I never got around to @A
        Au0 | I haven't seen @A but I heard it's great
        As0+ | @A was [okay|fine|so so]
        Au0 | No, I didn't see @A
    """,
    "unreal": """
        A0-s | I wish I [liked|loved] @A
        A0-s | I would have liked @A with another ending
        A0 | I might like @A
        A0u | I want to see @A
        A0u | I'd love to watch @A
        A0u | I will watch @A tonight
        A0-s | I wanted to like @A
        A0-s | @A could have been great
        A0u | @A sounds [great|interesting|boring]
        A0 | If I liked boxing I would love @A
        A0u | @A looks awful
        A0+s | I used to love @A
        A0 | I hope @A is good
        A0 | I would probably hate @A
        A0+-s | I thought I would hate @A
    """,
    "question": """
        A0 | Do you [like|love|hate] @A?
        A0 | Is @A [any good|scary|worth watching]?
        A0 | Did you enjoy @A
        A0 | Should I watch @A?
        A0 | What did you think of @A?
        A0 | why do people love @A
        A0 | Would I like @A?
        A0 | Is @A as boring as they say?
        A+ | I loved @A, do you know something similar?
        A+ | I loved @A. Have you got more like that?
        A0 | How good is @A?
    """,
    "wish": """
        A0+ | Show me something like @A
        A0 | Recommend me a great comedy
        A0 | I want something funny from the nineties
        A0 | I'm looking for a good horror movie
        A0+ | any good movies like @A?
        A0 | something scary for tonight
        A0 | I would love a good thriller
        A0 | I like funny movies
        A0 | Please recommend a nice family film
        A0 | I hate horror movies
        A0+ | I'm in the mood for a movie like @A
        A0 | Nothing too scary please
    """,
    "about a part": """
        A0-s+ | I loved the soundtrack of @A
        A0+s- | The ending of @A was terrible
        A0+s | The acting in @A was great
        A+ | I liked @A but hated the ending
        A0-s+ | @A has a great cast
        A0 | I loved the book @A
    """,
    "nothing named": """
        A0 | I LOVE THIS MOVIE, IT IS SO GOOD
        A0 | Awesome! Thanks.
        A0 | I live in California
        A0 | Frozen pizza for dinner tonight
        A0 | Yes, that is good
        A0 | please talk to me
        A0 | I love my family and friends
        A0 | dinner with friends was great
        A0 | The comedy was good
        A0 | I went all the way to the cinema, it was great
        A0 | i loved her in that
        A0 | Good, thanks. Good idea!
        A0 | Funny people are great company
        A0 | I loved Citizen Marmalade
    """,
    "longer": """
        A+ B- | Last week we watched @A, which I loved, and @B, which I hated
        A- | My wife wanted to see @A so we did, and it was terrible
        A+ | I was sceptical at first but @A is fantastic
        A+ | To be honest I really loved @A
        A- | I have to say @A was really bad
        A+ | I must admit that I enjoyed @A a lot
        A- | I've seen @A three times and still hate it
        A+ B+ | You know what, @A and @B are two of my favorites
        A- | Sorry but @A is just awful
        A+ B0 | If you like @B you should know that I adore @A
        A0 | My son made me watch @A for the tenth time
        A- B+ | I hated @A. But @B? Loved it!
        A+ | Just finished @A. Wow, what a masterpiece
        As | I'm pretty sure I have seen @A
        A+s | I saw @A again yesterday and it is still great
        A- | I saw @A with my wife and we hated it
        As-0 | I saw @A with my wife and she hated it
        A+ B- C+ | @A: great. @B: boring. @C: great.
        A+ B+ | I love @A & @B
        A-0 | I never want to see @A again
    """,
    "whose": """
        A0 | Nobody likes @A
        A0 | The critics loved @A
        A0 | Half of my friends hate @A
        A0 | He loves @A and I don't know why
        A+0 | Everyone hates @A but I like it
        A0 | Is @A the one that you love?
        A0 | @A is supposed to be great
        A0 | Grandma adores @A
        A0 | You would love @A
        A0 | @A has great reviews
        A- | Everybody raves about @A, but I found it boring
        A0 | people who like @A are weird
        A0 | my girlfriend says @A is boring
        A0 | I know someone who hates @A
        A0 | @A is hated by critics
        A0 | I was told that @A is good
        A+ | My husband hates it when I say that, but I love @A
    """,
    "marks": """
        A+ B- | @A: loved it, @B: hated it
        A+ B- | Loved @A - hated @B
        A-0 | Never, ever liked @A
        A+0 B0-+ | I liked @A, @B less
        A+s0 B0 | I liked @A less than @B
        A- B- | Worst movies ever: @A, @B
        A+ | (@A was great)
    """,
    "me too and not me": """
        A- | My wife didn't like @A and neither did I
        A- | My wife hated @A and so did I
        A+ | My wife didn't like @A but I did
        A- B- | My wife loves @A and @B but I don't
        Au | My wife has seen @A but I haven't
        As | My wife hasn't seen @A but I have
        Au | I haven't seen @A but my wife has
        A+ | I loved @A, my wife didn't
        A0 B0 | My wife loves @A but not @B
        A0 B- | My wife loves @A but I hate @B
        A0+ | My wife loves @A, me too
    """,
    "offer: answers": """
        B+ C- | the second one is great, the third is awful
        A+ | I loved the first one
        A- | the first was boring
        As | I've seen the first
        As Bs Cu0 | I've seen all except the last
        A+ B+ C+ | I loved all of them
        Cu | I haven't seen the last one
        As Bs | seen the first two
        A+ B-0s | I liked the first but not the second
        A- B- C- | I hated all three
        B- | number two was terrible
        C+ | The third is a classic, I love it
        As B0 C0 | I've seen @A already
        B+ | #2 is my favorite
        A0 B0 C0 | I liked the first half of the book
        A- | the first movie sucked
        A+ B+ C+ | I liked the first, the second and the third
        A+ B+ C-0 | the first and second were good, the third not
    """,
    "offer: talk": """
        A0 | thanks, you are [great|awesome|funny]
        A0 | show me something funny instead
        A0 | That's a great list
        A0 | good suggestions!
        A0 | I like your ideas
        A0 | great, thank you so much
        A0 | this app is terrible
        A0 | cool
        A0 | [Perfect|Awesome|Nice]
        A0 | I hate it when you do that
        A0 | not what I wanted, something scary
        A0 | more like the second one please
        A0 | sounds good
        A0 | do you have anything better?
        A0 | why?
        A0 | that was a joke
        A0 | I had a great day
        A0 | no but my brother loved it
        A0 | none of these, please
        A0 | I don't like comedies
        A0 | what is the second one about?
        A0 | I love pizza
    """,
}

LATER_FAMILIES = {
    "later: liked": """
        A+ | @A was [superb|outstanding|so good]
        A+ | we both [adored|really liked] @A
        A+ | I was blown away by @A
        A+ | honestly, @A is a gem
        A+ | I fell in love with @A
        A+ | @A made my day
        A+ | For me @A is the best film of all time
        A+ | I enjoyed every minute of @A
        A+ | I think @A is underrated
        A+ | Saw @A on Saturday, absolutely fantastic
    """,
    "later: disliked": """
        A- | I [detested|abhor|really disliked] @A
        A- | @A is [rubbish|dreadful|dull|a disaster]
        A- | we couldn't finish @A
        A- | I wasted two hours on @A
        A- | What a terrible film @A is
        A- | @A let me down
        A- | @A has to be the worst film I have ever seen
        A- | we found @A painfully boring
        A- | I am sick of @A
        A- | Tried watching @A, gave up, it was unbearable
    """,
    "later: negation": """
        A- | I wasn't [impressed by|keen on] @A
        A- | @A did nothing for me
        A- | I was not a fan of @A at all
        A- | I don't find @A [funny|entertaining]
        A- | @A just isn't my kind of movie
        As0+ | I do not [loathe|despise] @A
        As0+ | @A wasn't [dull|a disaster]
        As0+ | I can't say that I hated @A
        A+0 | I couldn't fault @A
        A+ | There is no question that @A is brilliant
        A+0s | Who wouldn't love @A, I certainly do
        A- | I never got into @A
    """,
    "later: whose": """
        A0 | My [boss|cousin|neighbour] hated @A
        A0 | Some people think @A is rubbish
        A0 | The reviews say @A is superb
        A0 | I've been told @A is dull
        A0 | Apparently @A is great
        A0 | No one enjoyed @A
        A0 | My daughter's favorite film is @A
        A- | Everyone else enjoyed @A but I thought it was dreadful
        A+ | Whatever the critics say, I adore @A
        A0 | She thought @A was terrific
        A+0 | My friends find @A silly, I don't
    """,
    "later: several": """
        A+ B- | I adored @A but couldn't stand @B
        A- B+ | @A was rubbish but @B was superb
        A+ B- | loved @A, not @B
        A- B- C- | I disliked @A, @B and @C
        A- B- | Neither @A nor @B is my cup of tea
        A+ B+ | Both @A and @B are brilliant
        A+ B- C+ | @A is great, @B is awful and @C is wonderful
        As Bs | I have watched @A and @B
        Au Bu | I haven't seen @A or @B
        As Bu | Seen @A, haven't seen @B
        A+ B0-s | I loved @A, unlike @B
        A+ B0s | @A is my favorite, then comes @B
    """,
    "later: compared": """
        A+0s B0+s | I enjoyed @A more than @B
        A0+ B0-s | @A beats @B
        A0-s B0+s | I prefer @B over @A
        A0 B0 | @A has nothing in common with @B
        A0-+s B0+s | @A isn't half as funny as @B
    """,
    "later: seen": """
        As | I caught @A on TV last week
        As | already watched @A
        As | We've seen @A many times
        Au | I still haven't watched @A
        Au | @A? Never seen it.
        Au | haven't had time to see @A yet
        As0+ | @A was alright
        A0u | I'm going to watch @A tomorrow
        A0u | I missed @A when it was in cinemas
    """,
    "later: unreal": """
        A0 | I'd probably enjoy @A
        A0 | I'm hoping to love @A
        A0-s | I expected to enjoy @A
        A0-s | @A should have been better
        A0-s | If only I had liked @A
        A0 | @A might be good
        A0-s | I tried to like @A
        A0 | Maybe I will love @A
    """,
    "later: question": """
        A0 | Have you got @A?
        A0 | Would you say @A is good?
        A0 | what makes @A so great?
        A0 | Are there people who hate @A?
        A0 | Was @A really that bad?
        A0 | does anyone still like @A
        A- | I hated @A. Is there anything better?
    """,
    "later: wish": """
        A0 | Could you find me a thriller?
        A0 | a love story please
        A0 | Give me something as good as last time
        A0+ | I need more movies like @A
        A0 | Nothing boring please
        A0 | what is good for kids?
        A0 | I fancy a western tonight
    """,
    "later: about a part": """
        A0+-s | The music in @A is fantastic
        A0-s | I hated the main character of @A
        A- | @A has a good cast but is a terrible movie
        A0+s | I liked the trailer of @A
    """,
    "later: nothing named": """
        A0 | WHAT A GREAT DAY
        A0 | Her dinner was awful
        A0 | It was funny to see the family
        A0 | Good. Yes. Awesome.
        A0 | I loved Professor Pumpernickel
        A0 | my house is frozen and I hate it
    """,
    "offer, later: answers": """
        A+ | The first one is wonderful
        B- | I couldn't stand the second one
        A- B+ | The first was dull but I loved the second
        Cs | I have already seen the third
        A- C- | I disliked the first and the third
        As Bs Cs | seen them all
        A+ B+ C-0 | I liked all of them except the last one
        Bu | Never seen the second
        C- | the last one was rubbish
        A+ B+ C+ | all three are great
    """,
    "offer, later: talk": """
        A0 | you're [brilliant|useless]
        A0 | nice picks
        A0 | I love how fast you are
        A0 | what a good idea
        A0 | hm, not really
        A0 | I would rather see something romantic
        A0 | great, and something older?
        A0 | my wife hates all of them
        A0 | that is a good question
        A0 | why the first one?
        A0 | I'm bored
        A0 | wow, excellent
    """,
}
"""Written after the grammar."""
