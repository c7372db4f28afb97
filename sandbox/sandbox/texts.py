"""Words the made-up shop is written with, and the awkward ones that break naive copies."""

FIRST = (
    "Ada", "Björn", "Chloé", "Dmitri", "Esi", "Fatima", "Grace", "Hiroshi", "Inés", "Jón", "Kwame", "Lena", "Miguel",
    "Nadia", "Olu", "Priya", "Quinn", "Rosa", "Søren", "Tomás", "Uma", "Viktor", "Wei", "Ximena", "Yuki", "Zoë",
)  # fmt: skip
LAST = (
    "Álvarez", "Brown", "Chen", "D'Angelo", "Eriksson", "Fischer", "García", "Haddad", "Ivanova", "Jones", "Kim",
    "Łukasik", "Müller", "Nguyễn", "O'Brien", "Petrov", "Quist", "Rossi", "Sato", "Tanaka", "Ueda", "Van der Berg",
    "Williams", "Xu", "Yılmaz", "Žižek",
)  # fmt: skip
THINGS = (
    "Lamp", "Mug", "Tote", "Hoodie", "Notebook", "Candle", "Backpack", "Scarf", "Teapot", "Chair", "Poster", "Socks",
    "Wallet", "Bottle", "Blanket", "Vase", "Apron", "Kettle", "Clock", "Rug",
)  # fmt: skip
KINDS = ("Walnut", "Linen", "Indigo", "Stone", "Copper", "Mossy", "Arctic", "Sunset", "Classic", "Café", "Mini", "Grand")
VENDORS = ("Acme", "Nordlys", "Harbor & Sons", "Atelier Été", "山田商店", "Backyard Goods")
COLORS = ("Black", "White", "Red", "Forest", "Sand", "Sky", "Plum", "Amber", "Rosé", "Graphite")
SIZES = ("XS", "S", "M", "L", "XL", "2XL", "3XL", "4XL", "5XL", "One size")
TAGS = ("vip", "gift", "Wholesale", "newsletter", "b2b", "été", "fragile", "rush", "first-order", "Returning")
TYPES = ("Home", "Apparel", "Kitchen", "Accessories", "", "Stationery")
SOURCES = ("web", "web", "web", "web", "pos", "shopify_draft_order", "instagram", "580111")
NOTES = (
    "Please leave at the door.", "Gift: no receipt", "call before delivery", "2nd floor, left", "Wrap it nicely 🎁",
)  # fmt: skip
# Each has broken somebody's import: quotes, separators, escapes, markup, right-to-left, joined emoji, long, blank.
AWKWARD = (
    'He said "hello", twice', "tab\there, newline\nthere", "back\\slash and \\N and \\.", "comma, semicolon; pipe|",
    "Robert'); DROP TABLE orders;--", "<b>bold & <script>alert(1)</script></b>", "emoji 👩‍👩‍👧‍👦 🇳🇴 ✨",
    "مرحبا بالعالم", "日本語テキスト", "NULL", "null", "", " leading and trailing ", "a/b/c?d=e&f=g#h", "100% {{money}}",
    "line\u2028separator", "é (composed) e\u0301 (combining)", "carriage\r\nreturn", "{\"json\": [1, 2]}", "x" * 600,
)  # fmt: skip
PLACES = (
    ("Ottawa", "Ontario", "ON", "Canada", "CA", "K2P 2L8"),
    ("New York", "New York", "NY", "United States", "US", "10001"),
    ("San Francisco", "California", "CA", "United States", "US", "94107"),
    ("Austin", "Texas", "TX", "United States", "US", "73301"),
    ("London", None, None, "United Kingdom", "GB", "SW1A 1AA"),
    ("München", None, None, "Germany", "DE", "80331"),
    ("東京", "Tōkyō", "JP-13", "Japan", "JP", "100-0001"),
    ("São Paulo", "São Paulo", "SP", "Brazil", "BR", "01310-100"),
)
STREETS = ("Elm St.", "Kongens gate", "Rue de l'Été", "O'Connor Street", "Main Street", "Bahnhofstraße")
SHIPPING = (("Standard", 595), ("Express", 1495), ("Free shipping", 0), ("International", 2250))
PRESENTMENT = (("EUR", 0.92), ("GBP", 0.79), ("CAD", 1.37), ("JPY", 151.2))
