"""The terms that the stub recognises as entities, by kind.

A real model knows what a metabolite is; the stub looks it up. Names made of capitals and digits (``DHCR7``,
``SGLT2``) are recognised by their shape, so genes and trials need not be listed. Words that occur in every
passage (kidney, plasma) are left out: an entity that joins everything to everything retrieves nothing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

_METABOLITES = """\
trimethylamine n-oxide; trimethylamine; choline; l-carnitine; carnitine; homocysteine; methionine;
vitamin b12; vitamin b6; folate; folic acid; 5-methyltetrahydrofolate; cysteine; phenylalanine; tyrosine;
tetrahydrobiopterin; leucine; isoleucine; valine; alloisoleucine; branched-chain amino acids;
hydroxyproline; 3-hydroxyisobutyrate; octanoylcarnitine; acylcarnitines; hexanoylglycine; suberylglycine;
medium-chain triglycerides; bile acids; cholic acid; chenodeoxycholic acid; ursodeoxycholic acid;
tryptophan; kynurenine; neopterin; quinolinic acid; kynurenic acid; interferon gamma; cortisol;
ceramides; sphingolipids; serine; palmitoyl-coa; ldl cholesterol; 2-hydroxyglutarate;
alpha-ketoglutarate; lactate; d-lactate; thiamine; adrenaline; succinate; fumarate; malonate; superoxide;
succinic acid; butyrate; acetate; propionate; short-chain fatty acids; dietary fibre; uric acid; urate;
monosodium urate; xanthine; purine; interleukin 1 beta; creatinine; creatine; cystatin c;
galactose-1-phosphate; galactose; galactitol; orotic acid; orotidine; carbamoyl phosphate; ammonia;
glutamine; citrulline; arginine; pyrimidine; methylmalonic acid; methylmalonyl-coa; succinyl-coa;
adenosylcobalamin; glycine; hippurate; p-cresol sulfate; p-cresol; p-cresyl sulfate; p-cresyl
glucuronide; albumin; indoxyl sulfate; indole; indoxyl; asymmetric dimethylarginine; symmetric
dimethylarginine; nitric oxide; dimethylamine; beta-hydroxybutyrate; acetoacetate; ketones; glucose;
hba1c; 1,5-anhydroglucitol; 17-hydroxyprogesterone; 11-deoxycortisol; 21-deoxycortisol; androgens;
hydrocortisone; fludrocortisone; 7-dehydrocholesterol; 8-dehydrocholesterol; cholesterol; sterols; amino
acids; lipoprotein subclasses; lathosterol; campesterol; sitosterol; simvastatin acid; secondary bile
acids"""
_DISORDERS = """\
cardiovascular risk; myocardial infarction; stroke; homocystinuria; phenylketonuria; maternal
phenylketonuria; maple syrup urine disease; insulin resistance; type 2 diabetes; obesity; mcad
deficiency; hypoketotic hypoglycaemia; intrahepatic cholestasis of pregnancy; stillbirth; inflammation;
melanoma; coronary risk; coronary artery disease; atherosclerotic plaque; glioma; glioblastoma;
2-hydroxyglutaric aciduria; sepsis; septic shock; ischaemia; reperfusion; st-elevation myocardial
infarction; gut barrier; ulcerative colitis; gout; hyperuricaemia; lesch-nyhan disease; sarcopenia;
cirrhosis; galactosaemia; primary ovarian insufficiency; ornithine transcarbamylase deficiency;
hyperammonaemia; vitamin b12 deficiency; pernicious anaemia; methylmalonic aciduria; folate deficiency;
nonketotic hyperglycinaemia; propionic acidaemia; short bowel syndrome; intestinal failure; coeliac
disease; mucositis; citrullinaemia; chronic kidney disease; uraemic toxin; constipation; endothelial
dysfunction; hypertension; pre-eclampsia; diabetic ketoacidosis; ketoacidosis; glycaemic variability;
hnf1a-mody; congenital adrenal hyperplasia; salt wasting; smith-lemli-opitz syndrome; amino acidopathies;
organic acidurias; fatty acid oxidation disorders; myopathy; new diabetes"""
_PROTEINS = """\
flavin-containing monooxygenase 3; methionine synthase; cystathionine beta-synthase; phenylalanine
hydroxylase; branched-chain alpha-ketoacid dehydrogenase; medium-chain acyl-coa dehydrogenase;
indoleamine 2,3-dioxygenase; tryptophan 2,3-dioxygenase; aryl hydrocarbon receptor; nmda receptors;
serine palmitoyltransferase; ceramide synthases; isocitrate dehydrogenase; isocitrate dehydrogenase 1;
pyruvate dehydrogenase; succinate dehydrogenase; histone deacetylases; xanthine oxidase; uricase; nlrp3
inflammasome; hypoxanthine-guanine phosphoribosyltransferase; galactose-1-phosphate uridylyltransferase;
galactokinase; ornithine transcarbamylase; carbamoyl phosphate synthetase 1; methylmalonyl-coa mutase;
glycine cleavage system; argininosuccinate synthetase; organic anion transporters; tryptophanase; nitric
oxide synthase; dimethylarginine dimethylaminohydrolase; 21-hydroxylase; 7-dehydrocholesterol reductase;
hmg-coa reductase; hypoxia-inducible factor"""
_DRUGS = """\
sapropterin; pegvaliase; epacadostat; pembrolizumab; statins; statin response; ezetimibe; pcsk9
inhibitors; vorasidenib; metformin; allopurinol; febuxostat; rasburicase; trimethoprim; cimetidine;
dolutegravir; sodium benzoate; phenylbutyrate; valproate; proton pump inhibitors; nitrous oxide;
dextromethorphan; teduglutide; prebiotics; ast-120; sglt2 inhibitors; insulin; cosyntropin; crinecerfont;
aripiprazole; trazodone; haloperidol; cariprazine; simvastatin"""
_METHODS = """\
lc-ms/ms; lc-ms; gc-ms; nmr spectroscopy; tandem mass spectrometry; newborn screening; dried blood spots;
magnetic resonance spectroscopy; mendelian randomisation; glomerular filtration rate; haemodialysis;
haemodiafiltration; liver transplantation; bariatric surgery; hilic; ion suppression; internal standards;
batch effects; pooled quality control samples; quality control samples; injection order; principal
component analysis; metabolomics standards initiative; pharmacometabolomics; second-tier tests; uk
biobank; flow-mediated dilation"""

_KINDS: Final = {
    "Metabolite": _METABOLITES,
    "Disorder": _DISORDERS,
    "Protein": _PROTEINS,
    "Drug": _DRUGS,
    "Method": _METHODS,
}
# Where a text uses an abbreviation, the graph should still hold one entity.
_SYNONYMS: Final = {
    "TMAO": "Trimethylamine N-Oxide", "ADMA": "Asymmetric Dimethylarginine", "PKU": "Phenylketonuria",
    "SDMA": "Symmetric Dimethylarginine", "MMA": "Methylmalonic Acid", "BHB": "Beta-Hydroxybutyrate",
    "MCAD": "MCAD Deficiency", "OTC": "Ornithine Transcarbamylase",
    "GALT": "Galactose-1-Phosphate Uridylyltransferase",
    "BCAA": "Branched-Chain Amino Acids", "MSUD": "Maple Syrup Urine Disease", "NMR": "NMR Spectroscopy",
    "NMDA": "NMDA Receptors", "IDO1": "Indoleamine 2,3-Dioxygenase", "SCFA": "Short-Chain Fatty Acids",
}  # fmt: skip
_ACRONYM_KIND: Final = "Protein"
_NO_ENTITIES: Final = frozenset(
    {"DNA", "LDL", "NADH", "HLA", "CKD", "MS", "LC", "GC", "II", "SRM", "NIST", "UK"}
)


@dataclass(frozen=True)
class Term:
    """One entity: its name as the graph spells it, and its kind."""

    name: str
    kind: str


def _title_case(term: str) -> str:
    return " ".join(word if word == "of" else _capitalised(word) for word in term.split())


def _capitalised(word: str) -> str:
    acronyms = {
        "ldl",
        "nmda",
        "mcad",
        "lc-ms/ms",
        "lc-ms",
        "gc-ms",
        "nmr",
        "hilic",
        "sglt2",
        "pcsk9",
        "uk",
        "hnf1a-mody",
    }
    return (
        word.upper()
        if word in acronyms
        else "-".join(part[:1].upper() + part[1:] for part in word.split("-"))
    )


def _terms() -> dict[str, Term]:
    found: dict[str, Term] = {}
    for kind, listing in _KINDS.items():
        for entry in listing.split(";"):
            term = " ".join(entry.split())
            found.setdefault(term, Term(_title_case(term), kind))
    return found


_TERMS: Final = _terms()
_TERM_PATTERN: Final = re.compile(
    r"(?<![\w-])(?:"
    + "|".join(re.escape(term) for term in sorted(_TERMS, key=len, reverse=True))
    + r")(?![\w-])",
    re.IGNORECASE,
)
_ACRONYM_PATTERN: Final = re.compile(r"(?<![\w-])[A-Z][A-Z0-9]{2,9}(?![\w-])")


@lru_cache(maxsize=4_096)
def terms_in(text: str) -> tuple[Term, ...]:
    """The entities that a text names, in order of first mention, each once, the longest name winning."""
    found: dict[int, Term] = {}
    covered: list[range] = []
    for match in _TERM_PATTERN.finditer(text):
        found[match.start()] = _TERMS[match.group().lower()]
        covered.append(range(match.start(), match.end()))
    for match in _ACRONYM_PATTERN.finditer(text):
        name = match.group()
        if name in _NO_ENTITIES or any(match.start() in span for span in covered):
            continue
        full = _SYNONYMS.get(name)
        known = _TERMS.get(full.lower()) if full else None
        found[match.start()] = known or Term(name, _ACRONYM_KIND)
    return tuple(dict.fromkeys(found[position] for position in sorted(found)))
