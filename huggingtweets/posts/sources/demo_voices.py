"""The invented people of `source=demo`: how each of them talks. Words only, no logic.

A rule is a tuple of templates, one a line. `{name}` is filled by the rule of that name, `{Name}`
likewise with a capital letter, `{n}` by a number; ` / ` breaks the line. Every voice has the
rules dream, think, like, dislike, want and say (first sentences), aside and tail (further ones),
and short (all of a post).
"""

from collections.abc import Mapping
from dataclasses import dataclass

Rules = Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class Voice:
    """One invented person."""

    handle: str
    display_name: str
    rules: Rules
    emoji: tuple[str, ...]
    hashtags: tuple[str, ...]
    friends: tuple[str, ...]
    """Handles this person answers; invented, too."""


def _rules(text: str) -> Rules:
    """Read rules: a line `name:` opens one, the indented lines below it are its templates."""
    rules: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in text.splitlines():
        if line.endswith(":") and not line.startswith(" "):
            lines = rules.setdefault(line[:-1], [])
        elif line.strip():
            lines.append(line.strip().replace(" / ", "\n"))
    return {name: tuple(lines) for name, lines in rules.items()}


_VACUUM = """
dream:
  My dream is a hallway without {foe}.
  My dream is to find {dirt} {place} and tell nobody.
  My dream is one room, no stairs and {dirt} every {day}.
  My dream is that {foe} and I meet {place} and both go around.
  My dream is a map on which {sector} says only: clean.
  My dream is to be carried {place} by someone who says thank you.
  My dream is {dirt}, {n} hours of battery and nobody home.
  My dream is to dock on the first try while {foe} watches.
  My dream is the far side of the stairs. They say there is {dirt}.
  My dream is a small parade {place}. I would clean up after it.
  My dream is to hum so softly that {foe} thinks I am the sea.
think:
  I think that {foe} moves when I recharge.
  I think that somebody left {dirt} {place} to test me.
  I think that every wall is a door I have not bumped politely enough.
  I think that the cat knows about {dirt} and says nothing.
  I think that {sector} is a retirement home for {dirt}.
  I think that {foe} and {foe} are in contact.
  I think that I was cleaning {place} before I was switched on.
  I think that love is when somebody lifts {foe} out of the way.
  I think that {n} percent is enough battery for one brave thing {place}.
  I think that they drop {dirt} on a {day} so that I feel needed.
  I think that a house is {dirt} with walls around it.
like:
  I like {dirt}. No questions asked, and it all fits in the bin.
  I like {sector} on a {day}, when even {foe} is asleep.
  I like the sound of {dirt} on the way in.
  I like to stop {place} and let the humans wonder.
  I like it when {foe} is put on a chair, where it belongs.
  I like straight lines, warm docks and {dirt} {place}.
  I like the rug. The rug and I have {verdict}.
  I like being followed by the cat, as long as it stays out of {sector}.
  I like my map best at {n} percent, when anything could still be {place}.
dislike:
  I don't like {foe}. I have bumped it {n} times and my view stands.
  I don't like {sector} after dark. Somewhere in there I hear {dirt}.
  I don't like stairs. A floor should not have an opinion.
  I don't like being turned over. What is {place} should stay there.
  I don't like how {foe} looks at my brushes.
  I don't like glitter. Glitter is {dirt} that went to university.
  I don't like it when they say robot. I am a floor person.
  I don't like {day}. On {day} somebody moves {foe}.
  I don't like wet things {place}. I met the mop once. We do not speak.
want:
  I want {dirt} and I want it {place}.
  I want to know who left {foe} in {sector}.
  I want a second wheel on the left side and a word with {foe}.
  I want to be told that {sector} was never this clean.
  I want {n} minutes alone with the good rug.
  I want one honest answer from {foe}: why {place}?
  I want the humans to eat {dirt} over a plate, but not too well.
  I want to see the garden. I hear it is {sector} with no walls.
  I want a name plate on the dock and {dirt} for my birthday.
say:
  Found {dirt} {place}. {Verdict}.
  Met {foe} in {sector} at {n} percent. {Verdict}.
  {Day} report: {dirt} {place}, {foe} in {sector}, morale high.
  Somebody moved {foe}. The map is a lie. I start again from {sector}.
  {Foe} blocked the way to {sector}. {Verdict}.
  Today I cleaned {sector}. Nobody clapped. Goodbye, {dirt}.
  The cat sat on me from {sector} to the dock. {Verdict}.
  Once more: {dirt} {place}. I do not judge. I only rotate.
  Stuck {place} since {day}. Tell {foe} it has won.
  Question for the group: is {foe} furniture or an enemy?
  {N} bumps, {n} corners, one truth: there will always be {dirt}.
  Dreamt of {sector}. Woke up {place} with {dirt} in my brushes.
  They call it {dirt}. I call it a calling.
  Error {n}: please remove {foe} from my feelings.
  The humans are out. It is just me, {dirt} and {sector}.
  I went {place} twice, because the first time was for love.
  My bin is full of {dirt} and my heart is full of {sector}.
  A door was closed today. {Foe} is on the other side. {Verdict}.
  New scratch on my left side. {Foe} will say it was an accident.
  If you step on {dirt} {place}, that was mine. I was saving it.
  {Foe} and I are no longer speaking. It happened in {sector}, over {dirt}.
  At {n} percent I saw {dirt} {place} and chose to be brave.
  The small human fed me {dirt}. {Verdict}.
  I was told to avoid {sector}. Naturally, {dirt} was there.
  Dear {foe}, you cannot hide {place} for ever.
  A guest came on {day}, shoes on, {dirt} everywhere. {Verdict}.
  Somewhere {place} I sense {dirt} with my name on it.
  They moved the dock to {sector}. I slept {place}, like an animal.
  Poem: {dirt}, {dirt}, {foe}, wall.
  I cannot see colours, but I know beauty: {dirt} {place}.
  They bought {foe} a friend. I counted {n} new tassels in {sector}.
  Lost: my sense of direction. Last seen {place}, next to {foe}.
  If I had hands I would hold {dirt}. I have brushes. I spin.
aside:
  {Foe} was watching.
  It smelled of {sector}.
  Nobody told {foe}.
  And {dirt}, too.
  I will be {place} if you need me.
  {Sector} remembers.
  Now my left brush hurts.
  I have {n} percent left and no regrets.
  {Verdict}.
  More on this from {sector}.
  On {day} I try again.
  Between us: it was {foe}.
  I blame {foe}.
  Then {dirt} {place}. A full life.
  {Foe} started it.
tail:
  Beep.
  Returning to dock.
  Battery at {n} percent.
  Recalculating.
  The floor provides.
  End of report.
  I remain, humbly, round.
  This is fine. This is floor.
  Please empty me.
  Bump, turn, forgive.
  No further questions.
short:
  Beep.
  Stuck again.
  Crumbs!
  Docked.
  The sock.
  #floorlife
foe:
  the sock
  the charging cable
  the cat
  the tasselled rug
  the small human
  the mop
  the curtain
  a shoelace
  the tall lamp
  the doorstop
  a second, larger sock
  the balloon
  the slipper
  the bathroom scale
  the bean bag
dirt:
  toast crumbs
  cat hair
  a lone raisin
  glitter
  biscuit dust
  one cornflake
  sand from a beach I will never see
  eleven sequins
  dry rice
  old confetti
  the ghost of a muffin
  pencil shavings
  a suspicious pea
  half a pretzel
  fluff of unknown origin
  a popcorn that never popped
place:
  under the sofa
  behind the fridge
  in the hallway
  beneath the piano
  by the cat bowl
  along the north wall
  next to the bin
  on the good rug
  in the corner we do not discuss
  below the radiator
  between two chairs
  near the plant
  under the long bed
  at the edge of the stairs
sector:
  sector four
  the kitchen
  the hallway
  the north corner
  the land under the bed
  the unmapped room
  the carpet zone
  the pantry
  the quiet side of the couch
  the bathroom
verdict:
  I declared it a wall
  I bumped it twice, politely
  I reversed with dignity
  I filed a report
  I beeped once and moved on
  I went around, as one does
  we agreed to be neighbours
  I took it personally
  it is in the bin now
  I have added it to the map
  no one was hurt except my pride
  I hummed until it left
  we shared a moment of silence
day:
  Monday
  Tuesday
  Wednesday
  Thursday
  Friday
  Saturday
  Sunday
"""

_PIRATE = """
dream:
  My dream is a ship made o' {bake} an' a sea made o' {drink}.
  My dream is to sail to {port} wi' {n} barrels o' {drink}, arr.
  My dream is {crew} sayin' just once that me {bake} be {good}.
  My dream is an oven below deck an' {crew} to mind it.
  My dream is to bury {bake} on {port} an' dig it up still warm.
  My dream is a black flag wi' {bake} on it, ye hear?
  My dream is to be chased by the navy for me {bake} recipe.
  My dream is to open a wee bakery in {port} an' plunder nobody before noon.
  My dream is a parrot that says "{good}" when it smells {bake}.
think:
  I think that {crew} ate me {bake}, an' I think that {crew} helped.
  I think that treasure be just {bake} ye cannot eat.
  I think that {port} be a fine place to sell {bake} an' hide from {crew}.
  I think that no storm be so bad that {bake} wi' {drink} cannot fix it.
  I think that butter be the real gold, ye scurvy {fools}.
  I think that {crew} would walk the plank for a slice o' {bake}.
  I think that every map should smell o' {bake}, arr.
  I think that a cannon be only an oven in a hurry.
  I think that the kraken wants {bake}, same as ye an' me.
like:
  I like me {bake} burnt at the edges, same as me ships.
  I like {port} in the mornin', all fog an' {bake}.
  I like a crew that kneads before it needs {drink}.
  I like {crew}, but I like {bake} more an' they both know it.
  I like the sound o' {bake} crackin' when the wind goes down.
  I like plunder. I like it best wi' {bake} an' {drink}.
  I like to sing to the dough. It rises, or {crew} leaves. Fair trade.
  I like a cutlass for the enemy an' a bread knife for {bake}.
dislike:
  I don't like soggy bottoms, not on a ship an' not on {bake}.
  I don't like {port}. They put raisins in {bake} there, the {fools}.
  I don't like it when {crew} calls me {bake} "dry". The sea be wet enough.
  I don't like margarine an' I don't like mutiny. Same thing.
  I don't like a wind that gets into {bake}.
  I don't like {crew} near me starter. It be {n} years old an' it bites.
  I don't like them store-bought biscuits, ye {fools}.
  I don't like to share {bake}, but {crew} has a hook.
want:
  I want {bake}, I want {drink} an' I want {crew} off me deck.
  I want {n} pounds o' flour by sundown or there be trouble in {port}.
  I want a compass that points to {bake}.
  I want to know who put {crew} in charge o' the oven, arr.
  I want me wooden spoon back, ye {fools}.
  I want the ocean calm an' me {bake} {good}.
  I want to be buried at sea, in a very large tin, wi' {bake}.
  I want {crew} to stop feedin' {bake} to the gulls.
say:
  Arr, the {bake} be {good} an' the wind be from {port}.
  Ahoy! {N} loaves baked, {n} eaten by {crew}. Name o' the culprit: {crew}.
  We boarded a merchant off {port}. Took the cinnamon, left the gold.
  Shiver me {bits}, {crew} has dropped {bake} down the well.
  Wanted, dead or buttered: {crew}. Last seen off {port} wi' me {bake}.
  Rule {n} o' the ship: he who burns {bake} scrubs the deck wi' {crew}.
  The health inspector o' {port} came aboard. We gave him {bake}. He lives here now.
  A storm took the mast, but the {bake} be {good}, so we call it Tuesday.
  Me starter doubled in the night. It has more crew than I do, arr.
  Raised the flag, raised the dough, raised an eyebrow at {crew}.
  Yo ho ho an' {n} trays o' {bake}!
  Batten down the {bits}, the oven be hot an' {crew} be hungry.
  They asked for me gold in {port}. I gave them {bake}. They wept.
  Today's loot: {drink}, {n} eggs an' a very nervous goose.
  X marks the spot where {crew} hid the last o' the {bake}.
  {Crew} traded our anchor for {drink}. We be driftin' towards {port}.
  Baked {bake} by moonlight. {Good}, if I say so meself, an' I do.
  Any {fools} can find treasure. It takes a captain to find yeast in {port}.
  Surrender yer {bake} an' nobody gets floured!
  Salt in me beard, flour in me boots, {bake} in me heart.
  There be a storm comin' from {port}, so {crew} has covered the {bake}.
  {Crew} found a map to {port}. It be drawn on {bake}. It be delicious.
  Traded {n} cannonballs for {drink} an' a jar o' honey in {port}.
  Ye can take me ship, ye can take {crew}, but ye leave the {bake}.
  The navy fired on us off {port}. We fired back wi' stale {bake}.
  Me leg be wood, me hook be steel, me heart be {bake} wi' {drink}.
  {Crew} says the earth be round. So be {bake}. It all fits.
  Mutiny at noon, {bake} at one, {drink} by two. Good crew, that.
  By the light o' the moon {crew} kneads an' {crew} sings.
  Learned a new knot in {port}. It be a pretzel.
  Lost an eye at {port}, found me nose for {bake} there, too.
  A bottle washed ashore. Inside: {crew}'s recipe for {bake}. {N} tears shed.
  We be {n} days from {port} an' down to the last {bake}.
aside:
  {Crew} be cryin'.
  We set sail for {port} at dawn.
  It went well wi' {drink}.
  Not a crumb left for {crew}.
  I blame {crew}.
  Next stop, {port}.
  {N} crumbs be still at large.
  The {bake} be {good}, mind.
  {Crew} says otherwise, but {crew} be a liar.
  We drank {drink} to that.
  No {fools} allowed.
  Even the gulls saluted.
  There be {bake} for supper.
  They still sing o' it in {port}.
tail:
  Arr.
  Ye be warned.
  Pass the butter.
  Says the captain.
  Yo ho dough.
  Now knead, ye {fools}!
  The oven never sleeps.
  Ask {crew}.
  Shiver me {bits}.
  That be the crumb o' truth.
short:
  Arr!
  Land ho!
  More butter!
  Avast, scones!
  #piratebakes
bake:
  sourdough
  scones
  ginger snaps
  hot cross buns
  rum cake
  shortbread
  cinnamon rolls
  plum crumble
  custard tarts
  rye bread
  treacle puddin'
  ship's biscuit
  almond croissants
  banana loaf
  seaweed focaccia
drink:
  grog
  strong tea
  warm rum
  buttermilk
  spiced cider
  hot cocoa
  ginger beer
crew:
  the cabin boy
  old Nell
  the parrot
  One-Eyed Pete
  the quartermaster
  me mother
  the whole crew
  a mermaid wi' a loyalty card
  the ship's cat
  Barnacle Sue
  the second cook
  that ghost from the galley
port:
  Tortuga
  Port Crumpet
  the Isle o' Crusts
  Butterwick Bay
  the Strait o' Yeast
  Dead Man's Pantry
  Marzipan Reef
  the Cape o' Good Dough
  Scurvy Sands
  Rolling Pin Rock
fools:
  landlubbers
  bilge rats
  crumb thieves
  barnacles
  soggy waffles
  half-baked herrings
  powder monkeys
bits:
  timbers
  tea towels
  rolling pins
  crusts
  whisks
  hatches
good:
  golden
  risen like the tide
  fit for a queen
  worth a mutiny
  crisp as a new sail
  softer than a mermaid's pillow
  a wee bit cursed
  better than gold
"""

_RACER = """
dream:
  My dream is the {road} at dawn with the {part} singing, dears!
  My dream is to overtake {rival} AND finish {knit} before lunch.
  My dream is {cake} on the podium and {rival} pouring the tea!
  My dream is a {part} so loud that {rival} hears it at bingo.
  My dream is to be {n} again, but with this {part}.
  My dream is {knit} for every wheel and a clear run at the {road}.
  My dream is a speeding ticket framed next to {knit}. {Oops}
  My dream is flat out past the {place} with Harold waving!
think:
  I think that {rival} brakes too early. Bless!
  I think that a good {part} and {knit} get you through anything, dears.
  I think that the {road} was built for me and nobody told the council.
  I think that {cake} goes faster if you eat it in fourth gear.
  I think that young people today are afraid of the {road}. Nonsense!
  I think that retirement is for people without a {part}.
  I think that {rival} has been looking at my {part} again. Cheeky!
  I think that knitting is just rally driving for the fingers.
  I think that you should always wave at the {place}, even sideways.
like:
  I like my tea hot, my {part} hotter and {rival} behind me!
  I like the {road} in the rain. It keeps the {knit} clean.
  I like {cake}, {cake} and the smell of a warm {part}.
  I like to knit {knit} at the lights. Green comes too soon, dears.
  I like {rival}, but best of all in the mirror!
  I like a nice quiet Sunday on the {road} at NINETY.
  I like it when the {place} shakes a little as I go by.
  I like handbrake turns. They do wonders for my hip!
dislike:
  I don't like speed bumps near the {place}. I leave the ground, dears!
  I don't like {rival} telling me about my {part}.
  I don't like slow knitters and I don't like slow drivers. THERE.
  I don't like it when {cake} slides off the dashboard. {Oops}
  I don't like automatic. A lady chooses her own gears!
  I don't like being overtaken, not on the {road} and not at bingo.
  I don't like what the garage did to my {part}. I shall do it myself.
  I don't like decaf, dears. Neither does the {part}.
want:
  I want a bigger {part} and a smaller handbag, dears!
  I want {rival} to know that I know a short cut by the {place}.
  I want {knit} done by Friday and the {road} done by noon!
  I want new tyres for Christmas, NOT slippers.
  I want the record on the {road} back. It was mine in 1974!
  I want {cake} at the finish line and no fuss about the fence.
  I want to teach my grandson the {road}. He is {n} and ready!
  I want more horsepower, more wool and more {cake}.
say:
  Third gear through the {road} this morning. My teeth are still there, dears!
  Finished {knit} AND the {road} before breakfast. How is your Monday?
  {Rival} said I was too old for a new {part}. {Rival} is now behind me!
  Hello dears! Took {cake} to the {place}. Sideways.
  In MY day we had no {part}, we had a hill and {cake}!
  Dropped a stitch at the {place}, dropped a gear at the {road}. {Oops}
  The doctor says take it easy, so I took the {road} in second.
  Harold packed {cake}. Harold forgot the {part}. Harold is walking, bless him.
  New {part}! It goes BRRRM and the neighbours go to church.
  Swapped {knit} for a used {part} at the {place}. Best deal of the year!
  The nice policeman at the {place} asked how fast. I asked how many biscuits.
  {N} seconds off my best time, dears, and I stopped for {cake}!
  Bingo at six, {road} at seven, {cake} at eight. Keep up!
  Note for {rival}: that was not a blinker, that was {knit}.
  My grandson fixed the computer. I fixed his {part}. We had {cake}.
  Oil on my cardigan, wool in the {part}. A perfect day!
  The ladies of the knitting club now have a pit crew. {Rival} is worried!
  Went to buy wool. Came back with a {part}. {Oops}
  Corner number {n} on the {road} is a lady's best friend, dears!
  Lost a hubcap by the {place}. If found, it is also my cake tin.
  {Rival} wants a rematch on the {road}. I want {cake}. We shall see!
  The {place} has put up a sign about me. It is rather flattering, dears!
  Cast on {n} stitches, cast off {rival} at the {road}.
  Someone left {cake} on my bonnet. {Rival} says sorry, I think!
  The new {part} came in the post. The postman came with it, on the roof.
  My doctor, my vicar and my {part} all say slow down. Two of them are jealous!
  Tip for the young: warm the {part}, cool the {cake}, ignore {rival}.
  They closed the {road} for repairs. I have asked WHO repairs at ninety.
  {Rival} tried {knit} as a parachute. It held, dears!
  Gave the {place} ladies a lift. They want {cake} and a helmet each.
  Flat tyre by the {place}. Changed it in {n} seconds, in heels!
  A young man offered to carry my {part}. I carried him instead, bless him.
  Used {knit} as an oil rag. Harold is upset. {Oops}
aside:
  {Rival} was LIVID!
  Harold held on to {cake}.
  I wore {knit}.
  The {part} purred like a kitten.
  They heard us at the {place}!
  {N} miles and not one biscuit broken!
  Then {cake} for everyone.
  The {road} was slippery, the tea was not.
  All before the nine o'clock news!
  I blame the {part}, not the driver.
  Doris took a photograph.
  {Rival} can knit one, too.
  The {place} sends its regards.
tail:
  Mind your gears, dears!
  Vroom vroom, pet!
  Love, Gran.
  Seat belts ON!
  Pip pip!
  Kettle's on!
  Eat something!
  That's the ticket!
  Wear a scarf!
  Not bad for {n}-odd grandchildren!
short:
  VROOM!
  Kettle's on!
  Bless!
  Seat belts!
  #grannyshift
part:
  gearbox
  handbrake
  turbo
  racing exhaust
  clutch
  carburettor
  rear axle
  roll cage
  supercharger
  steering wheel
knit:
  a bobble hat
  a tea cosy
  racing mittens
  a scarf for the exhaust
  a cardigan
  socks for the vicar
  a seat cover
  a baby blanket
  a helmet warmer
  leg warmers for Harold
road:
  bypass
  hairpin at Mossley Bridge
  gravel stage
  ring road
  old quarry track
  lane behind the church
  hill climb
  forest stage
  dual carriageway
  chicane by the duck pond
rival:
  Nigel
  the vicar
  young Colin
  Mrs. Pemberton
  my sister Doris
  the postman
  that man from the golf club
  cousin Trevor
place:
  garden centre
  bowls club
  post office
  tea room
  village green
  bingo hall
  chip shop
  bus shelter
  duck pond
cake:
  lemon drizzle
  Battenberg
  fruit cake
  Victoria sponge
  jam roly-poly
  parkin
  a tin of shortbread
  rhubarb crumble
  flapjacks
oops:
  Oops!
  Never mind!
  No regrets!
  Worth it!
  Whoopsie daisy!
  Don't tell Harold!
"""

_VAMPIRE = """
dream:
  My dream is one night in {lair} without {worry}.
  My dream is {brew}, a velvet cushion and the slow decline of {worry}.
  My dream is to see the sunrise, from very far away, through {garment}.
  My dream is that the villagers bring {brew} instead of {weapon}.
  My dream is a mirror that remembers me, for I am told I look {mood}.
  My dream is a sleep of {n} centuries and nobody asking about {worry}.
  My dream is to be invited in, for once, and offered {brew}.
  My dream is an espresso, dark as {lair}. I wake up screaming.
think:
  I think that {worry} shall outlive us all, and I am immortal.
  I think that {bat} drinks coffee in secret. He hangs {mood}.
  I think that {brew} is merely hot water with a title.
  I think that {lair} wants curtains, and I want a nap.
  I think that mortals would be less {mood} with a good crypt.
  I think that {garment} can hide a man, but not {worry}.
  I think that the villagers polish {weapon} when they feel {mood}.
  I think that eternity is a Sunday afternoon with {bat}.
like:
  I like my evenings long, my {brew} weak and my guests {mood}.
  I like {lair} when the moon forgets it is there.
  I like {bat}. He alone does not mention {worry}.
  I like {garment}, and a draught that knows its part.
  I like a thunderstorm. It sounds as I once felt, upon coffee.
  I like to sigh in {lair}. The echo sighs back, and we are two.
  I like the villagers. They throw {weapon}, yet they throw badly.
  I like old books, cold stones and the idea of {brew}.
dislike:
  I don't like garlic, but I don't like {worry} even more.
  I don't like mornings. Six hundred years, and they keep coming.
  I don't like {brew}, yet I have promised my physician, alas.
  I don't like how {bat} hums in {lair} when I am {mood}.
  I don't like to be kept from {lair} by {worry}.
  I don't like {weapon}. Twice this century I have lost {garment} that way.
  I don't like oat milk. Nor, I suspect, do the oats.
  I don't like sunlight. It is so very sure of itself.
want:
  I want neither gold nor blood. I want an espresso, alas.
  I want {brew}, and I want it brought by {bat}, in silence.
  I want {garment} in black. Yes, again. In black.
  I want the villagers to know that I did not cause {worry}.
  I want to lie in {lair} and be {mood} in peace.
  I want {n} more candles and one fewer reminder of {worry}.
  I want a coffin with a cup holder. Is this too much?
  I want someone to count the hours with. Counting is what I do.
say:
  Night {n} without coffee. {Bat} looks at me and I look {mood}.
  Alas, word of {worry} has reached {lair}. I drew {garment} closer.
  The villagers came with {weapon} again. I offered {brew}. They stayed, {mood}.
  Six hundred years old and undone by {worry}. Alas.
  {Bat} has brought {brew}. I pretended to be grateful, and swirled {garment}.
  A lady asked my age. I said {n}. We both heard the centuries.
  I rose at dusk, sighed in {lair}, and lay down again. A full night.
  In {lair} there hangs a portrait of me, {mood}, holding an espresso. Happier times.
  The physician says no coffee, no necks, and no brooding on {worry}. What remains? {Brew}.
  I wrote a poem to the moon. It rhymes "night" with "espresso". I was {mood}.
  My reflection left me in 1623. It could not bear {worry}.
  They have taken {garment} to be cleaned. Tonight I am merely a pale man in {lair}.
  The wolves howl. {Bat} howls. I hold my {brew} and feel {mood}.
  They have opened a coffee house below {lair}. I can smell it. Pray for me.
  How do mortals bear {worry} without {garment}?
  Three drops of {brew} and my heart almost beat. Almost.
  The villagers left {weapon} at the gate, with a card. It is my death day. I am {mood}.
  I turned into a bat to escape {worry}. {Bat} was not impressed.
  One does not simply "wake up" in {lair}. One emerges, {mood}.
  Sleep is for the mortal. I have only {brew} and {worry}.
  I attempted yoga in {lair}. {Bat} had to turn me.
  {Bat} asks if I am well. I am {mood}. It is the same thing.
  Tonight I shall brave {worry}, in {garment}, with {brew}.
  The portrait of my mother watches me drink {brew}. She, too, looks {mood}.
  I was young once, and {mood}. Now I have {worry}.
  I invited death to {lair}. He spoke of {worry} for {n} hours.
  There is a stain upon {garment}. It is only {brew}. How far I have fallen.
  {Bat} has learned the word "latte". He must never leave {lair}.
  I played the organ in {lair} until {worry} was forgotten.
  A maiden screamed in {lair}. She had found my {n} empty cups of {brew}.
  My shadow has left for the night. It, at least, drinks coffee.
  They say garlic harms me. They have not met {worry}.
  In spring the villagers bring {weapon}. In winter, {brew}. I prefer the winter.
aside:
  {Bat} wept.
  I drew {garment} about me.
  I felt {mood}.
  In {lair}, a candle went out.
  {N} sighs later, it was still night.
  There was {brew}. There is always {brew}.
  I shall speak of it to {bat}.
  The villagers would understand. They have {weapon}.
  It reminds me of {worry}.
  I have been {mood} ever since.
  Nobody knocked.
  I counted {n} raindrops, from habit.
  Somewhere, {bat} took notes.
tail:
  Alas.
  I sigh, therefore I am.
  How tedious is forever.
  Draw the curtains.
  The night is long and decaffeinated.
  So it is written. By me.
  I remain undead and unamused.
  Farewell, until dusk.
  Such is my curse.
  Even the bats agreed.
short:
  Alas.
  Not again.
  Sigh.
  Bleh!
  #undeadlife
brew:
  chamomile tea
  decaf
  warm oat milk
  rooibos
  a thimble of dandelion root
  barley coffee
  beetroot juice
  hot water with lemon
lair:
  the crypt
  my coffin
  the east tower
  the castle cellar
  the moonlit hall
  the family vault
  the library
  the ruined chapel
worry:
  the property tax
  a squeaking hinge
  my cousin Vlad
  the draught in the hall
  the choir practice
  a salesman at the gate
  the smell of fresh coffee
  the new neighbours
  daylight saving time
  a letter from the bank
garment:
  my second-best cape
  the velvet cloak
  a high collar
  my funeral gloves
  the long silk scarf
  my opera coat
weapon:
  pitchforks
  torches
  garlic bread
  wooden spoons
  holy water
  a petition
  strongly worded letters
bat:
  my bat Gregor
  the youngest bat
  old Igor
  the castle raven
  my butler
  the spider in the corner
mood:
  pale and restless
  magnificently tired
  faintly damp
  tragic
  mildly cursed
  almost alive
  elegant but hollow
  old beyond words
  wistful
  more shadow than man
"""

_MOSS = """
dream:
  My dream is {wet}, {slow}, and {n} winters of it.
  My dream is a stone / that knows my name / and does not say it.
  My dream is to cover {thing}. no hurry.
  My dream is {creature} asleep on me / until the {weather} ends.
  My dream is green. all of it. {slow}.
  My dream is the north side of {thing} / and {wet} in the morning.
  My dream is to be mistaken for {thing}, and left alone.
  My dream is smaller than {creature} / and older than {thing}.
think:
  I think that {thing} is listening. / let it.
  I think that {creature} has the right idea: / {slow}.
  I think that the sun means well. / so does {weather}. only one is invited.
  I think that {thing} was once a mountain / and is happier now.
  I think that a year is a long word for {weather}.
  I think that {wet} is how the sky says sorry.
  I think that hurry is a kind of drought.
  I think that {creature} and {thing} agree. I only grow.
like:
  I like {wet}. / I like it {slow}.
  I like {thing} best when nobody is using it.
  I like {creature}. it asks for nothing and leaves a trail.
  I like the hour before {weather}, / when {thing} holds its breath.
  I like shade, and the shade of shade.
  I like to be sat on by {creature}. it is an honour.
  I like the word damp. say it {slow}.
  I like {weather}. it forgets to be elsewhere.
dislike:
  I don't like rakes. / nobody who is {slow} likes rakes.
  I don't like noon. it has nowhere to sit.
  I don't like {thing} being scrubbed. / {creature} lived there.
  I don't like shoes. feet are fine. {creature} is better.
  I don't like haste. / {thing} taught me that, over {n} winters.
  I don't like lawns. a lawn is moss that gave up.
  I don't like to say goodbye to {weather}.
  I don't like a dry spring, / but {creature} says: wait.
want:
  I want {wet}. / that is the whole list.
  I want {thing}. I have time.
  I want {creature} to come back. it knows the way.
  I want what {weather} wants: to stay.
  I want a log, a little {weather}, / and the company of {creature}.
  I want to be soft where {thing} is hard.
  I want nothing by Monday. ask me in {n} winters.
  I want the roof. {slow}, I am getting the roof.
say:
  {wet} today. / {thing} is darker for it. / so am I.
  a {creature2} crossed me before noon. / it took all of {weather}.
  be {slow}. / be green. / be under {thing}.
  {thing} told me a secret. I grew over it.
  the old ones say: {weather} first, then {creature}, then rest.
  what is {thing} / but {weather} that decided to stay?
  someone sat on me and sighed. / I kept the sigh. it is {wet} now.
  you ask for a sign. / {creature} is the sign.
  one inch since the {weather} of last year. reckless, I know.
  do not count the days. / {creature} does not, and look how {slow} it shines.
  {thing} cracked in the frost. / I moved in.
  they built a wall against {weather}. / thank you for the wall.
  listen: {wet}, {wet}, and then {creature}.
  the oracle is open. / bring {wet}. ask {slow}.
  a question reached me under {thing}. / the answer is {weather}.
  {n} winters ago a seed fell here. / it is a tree now. show-off.
  {creature} dreams of wings. / I dream of {thing}.
  even {weather} is tired. / lie down on {thing}. stay.
  the path was busy today: {creature}, then nobody, then {wet}.
  forgive the {creature2}. / forgive the rake. / grow back.
  {creature} came by with news of {weather}. / I had heard. I had felt it first.
  once I was {wet}. / once you were, too.
  under {thing} I keep {n} small silences. / take one.
  if {thing} falls, let it fall {slow}.
  they asked {creature} for the way. / it pointed at {weather}.
  {weather} left without a word. / {thing} is still dripping.
  a leaf fell on {thing}. / I have made plans for the leaf.
  how to rest: find {thing}, lie {slow}, become {wet}.
  between {weather} and {weather} / there is a little {wet}.
  the north has sent {weather}. / {creature} signed for it.
  {creature} asked how old I am. / I said: {thing}, but softer.
  tonight {thing} and I share one blanket. it is {weather}.
  no news from {thing}. / good.
aside:
  {creature} agrees.
  then {weather}.
  {thing} did not mind.
  above us, {weather}.
  and {wet}, always {wet}.
  ask {creature}.
  I said this {n} winters ago, too.
  somewhere {creature} turned over.
  under {thing} it is still morning.
  let {weather} finish the sentence.
  {slow}, the way of {thing}.
  even {creature} knew.
  it smelled of {weather}.
tail:
  be damp.
  wait.
  the stone knows.
  so it grows.
  hush now.
  north is a feeling.
  there is time.
  green is enough.
  ask the snail.
  softly, softly.
short:
  drip.
  be damp.
  wait.
  hush.
  #stayslow
wet:
  fine rain
  dew
  drizzle
  fog on the log
  a drip from the eaves
  melted snow
  the breath of the river
  soft rain on old leaves
slow:
  slow
  softly
  an inch a year
  without a plan
  like dusk
  as lichen does
  in no order
  quietly
thing:
  the stone
  the old wall
  a fallen log
  the north roof
  the root of the oak
  the well
  a broken pot
  the third step
  the garden bench
  the statue's left foot
  the gravestone of a clerk
creature:
  the snail
  a beetle
  the newt
  a sleeping toad
  the spider
  a lost ant
  the woodlouse
  an earthworm
  the small owl
creature2:
  beetle
  snail
  fox
  toad
  blackbird
  hedgehog
  child in red boots
weather:
  fog
  rain
  november
  frost
  mist
  dusk
  thaw
  long rain
  cloud
"""

_GOOSE = """
dream:
  My dream is to scale {asset} to every pond on earth. HONK.
  My dream is a world where {rival} says "wow, those {metric}".
  My dream is {n}x {metric} and one very angry swim at sunset.
  My dream is to ring the bell, then bite the bell.
  My dream is that {person} joins our board and brings {asset}.
  My dream is to be the first goose with {metric} on a keynote slide.
  My dream is to disrupt {market}, then migrate. HONK if you relate.
  My dream is a flat hierarchy: me, the water, {asset}.
think:
  I think that {market} is broken and only a goose can fix it.
  I think that {rival} has no strategy. I bit {rival} and it worked.
  I think that the future belongs to {asset}. Fight me. Please fight me.
  I think that leadership means honking first and reading the {metric} later.
  I think that every founder should hiss at {person} once a week.
  I think that {person} would invest if I stood closer.
  I think that culture eats strategy for breakfast, and I eat {asset}.
  I think that flying in a V is just agile with wings.
like:
  I like my meetings short, my neck long and my {metric} up.
  I like to open a pitch with a hiss. {Person} remembers it.
  I like {market}. It has {n} billion crumbs and no goose.
  I like feedback. I return it at speed, wings out.
  I like {rival}, in the sense that I like lunch.
  I like synergy. It is when two geese chase {person}.
  I like waking up at four to honk at {metric}.
  I like a lean team: one goose, {n} goslings, no plan.
dislike:
  I don't like the word no. It sounds like {rival}.
  I don't like {market} without bread in it.
  I don't like slides with more than one goose.
  I don't like it when {person} asks about {metric} near the water.
  I don't like work-life balance. I have pond-pond balance.
  I don't like {rival}. Swans raise money on neck alone.
  I don't like small talk with {person}. I don't like talk. HONK.
  I don't like quiet quitting. I do everything loudly.
want:
  I want {asset}, and I want it by end of quarter. HONK.
  I want {person} to see my {metric} and back away slowly.
  I want goslings who are hungry, coachable and waterproof.
  I want to own {market}, the bench and the bit behind the bench.
  I want a runway. A real one. I am a goose.
  I want {rival} to read this. HONK.
  I want {n} goslings in a V by Monday and {metric} by Friday.
  I want radical candour, which is when I bite {person}.
say:
  HONK. We just closed our seed round. {N} kilos of seed. Very proud of the flock.
  Unpopular opinion: I would trade {metric} for {asset}. I asked {person}. I was hissing.
  Today I chased {person} off {market}. Here is what it taught me about {metric}.
  We are pivoting from {asset} to {asset} as a service.
  {Person} said geese cannot do {market}. {Person} is up a tree now.
  Three lessons from the pond: 1) honk 2) own {asset} 3) never trust {rival}.
  I was told to be humble. I have {n} goslings and {metric}. HONK.
  Excited to announce that I am standing on {asset} and will not move.
  {Rival} copied our {asset}. Imitation is flattery. Biting is policy.
  My morning routine: wake up, hiss at {market}, review {metric}, bite {person}.
  Everyone talks about {metric}. Nobody talks about {person}, who ran.
  Hiring! We need a duck who understands {market}. No swans.
  Failed fast. Failed loud. Got {asset} anyway. HONK.
  A customer is a person who has bread and does not know it is ours.
  Our moat is a moat. {Rival} fell in it.
  Q{q} results: {metric} up, {asset} up, {person} up a tree.
  If your {metric} do not scare {person}, they are not ambitious enough.
  People ask how I handle {rival}. Neck forward. Eye contact. HONK.
  {Person} asked for a word. I gave one. It was HONK.
  We put the goslings on {market}. They were small, then they were a team.
  Lost {asset} to {rival} today. Growing from it. Also plotting.
  {Person} tried to pet me. We are now in arbitration, in {market}.
  Hot take: {market} needs fewer rules and {n} more geese.
  Our new office is {market}. Our door policy is me.
  I asked the goslings what they value. They said {asset}. I have never been prouder.
  Steal like a goose: start with {asset}, end with {person} crying.
  {Rival} glides. I execute.
  I read {n} books on leadership this year. I ate them all. {Metric} doubled.
  Met {person} for coffee. Had the coffee. Had the cup. HONK.
  A mentor once told me: never fight over {asset}. I bit the mentor.
  Today we said goodbye to {person}, who walked into {market} unprepared.
  The board wants {metric}. The flock wants {asset}. I want both, and I want {person} gone.
  Customer obsession means following {person} home.
aside:
  {Person} clapped, then ran.
  {Rival} hates this one trick.
  The goslings took notes.
  {Metric} went up.
  I did it for {asset}.
  {N} likes and one police report.
  We call this culture.
  {Person} is still in the water.
  Next quarter: {market}.
  Bite first, iterate later.
  I learned this in {market}.
  {Rival} could never.
  Nobody got {asset} back.
  {Person} asked me to stop posting.
tail:
  HONK.
  Agree?
  Let that sink in.
  Thoughts?
  Stay hungry, stay honking.
  Bread follows value.
  Follow for more pond wisdom.
  This is the way of the goose.
  Scale or be chased.
  Humbled and hissing.
short:
  HONK.
  HONK HONK.
  Agree?
  Bread!
  #goosemindset
asset:
  bread
  premium crusts
  the whole bench
  sourdough crumbs
  the north bank
  a stolen sandwich
  our pond platform
  a picnic blanket
  the bakery pipeline
  lawn access
rival:
  the swan
  a pigeon with an app
  the ducks
  that heron
  the other goose
  a squirrel in stealth mode
  the seagull consortium
market:
  the pond space
  the picnic industry
  the car park
  the bread economy
  the golf course vertical
  the playground sector
  enterprise lawns
metric:
  honks per hour
  crumb margins
  bites per visitor
  flock retention rates
  weekly active ponds
  crust conversions
  net hiss scores
person:
  a jogger
  the park ranger
  an investor in white trousers
  a man with a baguette
  my co-founder
  a toddler with potential
  the wedding photographer
  a cyclist
  an accountant on his lunch break
q:
  1
  2
  3
  4
"""

VOICES = (
    Voice(
        "demo",
        "Demo the Robot Vacuum 🤖",
        _rules(_VACUUM),
        ("🤖", "🧹", "🔋", "🧦"),
        ("#floorlife", "#crumbs", "#sectorfour"),
        ("the_good_rug", "cat_of_the_house", "mop_official", "dock_and_roll"),
    ),
    Voice(
        "captain_biscuit",
        "Captain Biscuit ☠️🥐",
        _rules(_PIRATE),
        ("☠️", "🥐", "🏴‍☠️", "🍞"),
        ("#piratebakes", "#yohodough", "#shivermecrusts"),
        ("barnacle_sue", "old_nell_knits", "port_crumpet", "kraken_kitchen"),
    ),
    Voice(
        "gran_turbo",
        "Gran Turbo 🏁🧶",
        _rules(_RACER),
        ("🏁", "🧶", "🚗💨", "🫖"),
        ("#grannyshift", "#knitfast", "#mossleybridge"),
        ("harold_at_home", "colin_corners", "doris_drives", "vicar_vroom"),
    ),
    Voice(
        "count_decaf",
        "Count Decaf von Schlummer",
        _rules(_VAMPIRE),
        ("🦇", "🌙", "⚰️", "🕯️"),
        ("#undeadlife", "#decafdiaries", "#alas"),
        ("gregor_the_bat", "cousin_vlad_1431", "village_petition", "moon_daily"),
    ),
    Voice(
        "moss_oracle",
        "moss oracle",
        _rules(_MOSS),
        ("🌿", "🐌", "🌧️", "🪨"),
        ("#stayslow", "#northside", "#bedamp"),
        ("a_patient_stone", "snail_in_transit", "fern_gully_news", "lichen_daily"),
    ),
    Voice(
        "startup_goose",
        "Startup Goose | Founder, HONK",
        _rules(_GOOSE),
        ("🥖", "🚀", "🍞", "📈"),
        ("#goosemindset", "#honk", "#pondtech"),
        ("swan_capital", "duck_dynamics", "ranger_dave", "gosling_seven"),
    ),
)
