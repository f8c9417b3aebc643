"""Word lists of the synthetic population: common names combined by chance, nobody real."""

FIRST_NAMES: tuple[str, ...] = (
    "Ada", "Agnès", "Alma", "Amir", "Ana", "Anders", "Anna Maria", "Arjun", "Aya", "Beatriz",
    "Ben", "Björn", "Carla", "Chen", "Chloé", "Clara", "Dana", "Daniel", "Dario", "Diego",
    "Dilan", "Elena", "Elif", "Emil", "Emma", "Erik", "Esra", "Eva", "Fatima", "Felix", "Finn",
    "François", "Freya", "Gita", "Grace", "Hana", "Hannah", "Hugo", "Ida", "Ines", "Ingrid",
    "Iris", "Ivan", "Jamal", "Jana", "Jean-Luc", "Jin", "Jonas", "José", "Juan", "Julia", "Kai",
    "Karin", "Kofi", "Lara", "Leila", "Leo", "Lina", "Lucía", "Luis", "Maja", "Malik", "Mara",
    "Marco", "Maria", "Mateo", "Maya", "Mia", "Milan", "Mina", "Nadia", "Naomi", "Nils", "Nina",
    "Noah", "Nora", "Olga", "Omar", "Oscar", "Paula", "Pedro", "Priya", "Rafael", "Renée", "Rosa",
    "Ruth", "Samir", "Sara", "Selma", "Simon", "Sofia", "Søren", "Tariq", "Theo", "Tomás", "Uma",
    "Vera", "Victor", "Wei", "Yara", "Yusuf", "Zoë",
)  # fmt: skip

LAST_NAMES: tuple[str, ...] = (
    "Adams", "Ahmed", "Ali", "Alvarez", "Andersen", "Baker", "Becker", "Bell", "Bergström",
    "Bianchi", "Brown", "Carter", "Castro", "Chan", "Clark", "Cohen", "Costa", "Cruz", "D'Angelo",
    "Da Silva", "Dubois", "Díaz", "Edwards", "Evans", "Fischer", "Flores", "Fontaine", "García",
    "Gomes", "Green", "Gupta", "Haddad", "Hall", "Hansen", "Harris", "Hernández", "Hill",
    "Ibrahim", "Ito", "Ivanova", "Jackson", "Jansen", "Jensen", "Johnson", "Jones", "Kaya",
    "Khan", "Kim", "King", "Kowalski", "Kumar", "Larsen", "Lee", "Lewis", "Lopez", "MacDonald",
    "Martin", "Mbeki", "Meyer", "Miller", "Moore", "Morales", "Moreau", "Murphy", "Müller",
    "Nakamura", "Nelson", "Nguyen", "Novak", "Núñez", "O'Brien", "Okafor", "Olsen", "Ortiz",
    "Patel", "Pereira", "Petrov", "Quinn", "Ramos", "Reyes", "Rivera", "Roberts", "Rossi",
    "Santos", "Sato", "Schmidt", "Scott", "Sharma", "Singh", "Smith", "Sørensen", "Suzuki",
    "Tanaka", "Taylor", "Torres", "Turner", "Van Dijk", "Walker", "Weber", "White", "Wilson",
    "Wong", "Wright", "Yilmaz", "Young", "Zhang",
)  # fmt: skip

AREA_CODES: tuple[str, ...] = (
    "201", "206", "212", "213", "214", "216", "303", "305", "312", "313", "314", "317", "404",
    "407", "408", "410", "412", "414", "415", "419", "501", "502", "503", "504", "505", "508",
    "510", "512", "513", "515", "602", "603", "605", "608", "612", "614", "615", "616", "617",
    "619", "701", "702", "703", "704", "706", "713", "716", "717", "718", "719", "801", "802",
    "803", "804", "808", "813", "816", "817", "901", "904", "907", "909", "913", "915", "916",
    "918", "919",
)  # fmt: skip
"""Geographic area codes of the United States, so that every generated number is valid."""
