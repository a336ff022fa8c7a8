"""The commonest words of the Latin-script languages, which tell a sentence's language by a vote.

Articles, pronouns, prepositions, conjunctions, auxiliaries, adverbs and number words: a sentence has
some of them whatever it is about. A word of several languages votes for each. They are written as
`stages.language` finds words: in lower case, two letters or more, cut at apostrophes.
"""

from collections.abc import Mapping

FUNCTION_WORDS: Mapping[str, str] = {
    "en": """
        the an this that these those some any each every all both half much many more most less few other another such
        you he she it we they me him her us them my your his its our their who what which whose how when where why of
        to in on at by for from with without about into over after before between per than as like during if then so
        and or but not no only also because while until again still now first next last there here once together
        instead is are was were be been being am have has had do does did will would can could should must may might
        let yes well wait one two three four five six seven eight nine ten twice times total left get gets make makes
        need needs don doesn didn isn
    """,
    "de": """
        der die das den dem des ein eine einen einem einer eines kein keine keinen dieser diese dieses diesen jeder
        jede jedes jeden jedem alle beide beiden viele viel mehr weniger wenige einige ich du er sie es wir ihr ihm
        ihn ihnen uns mir mich sich mein meine sein seine seinen seiner seinem ihre ihren ihrer ihrem wer was welche
        wie wann wo warum von vom zu zum zur in im an am auf aus bei mit nach für über unter vor durch ohne um bis
        seit pro zwischen während gegen und oder aber denn wenn dann dass weil als ob also so nicht nur auch noch
        schon sehr hier dort da damit davon dabei jetzt nun zuerst insgesamt immer wieder ist sind war waren wird
        werden wurde wurden hat haben hatte hatten kann können konnte muss müssen soll sollte will möchte gibt geht
        macht ja nein gut gesamt man eins zwei drei vier fünf sechs sieben acht neun zehn hälfte mal doppelt jeweils
        wieviele
    """,
    "fr": """
        le la les un une des du de au aux ce cet cette ces son sa ses leur leurs mon ma mes notre nos votre vos chaque
        tous tout toute toutes deux plusieurs quelques plus moins autre autres même je tu il elle on nous vous ils
        elles me te se lui en qui que qu quoi dont où quel quelle quels quelles combien comment quand pourquoi dans
        par pour sur avec sans sous entre vers chez depuis pendant après avant jusqu et ou mais donc or ni car si
        comme lorsque lorsqu puis ensuite alors ne pas aussi encore déjà très bien ici là maintenant est sont était
        étaient être ont avait avaient avoir fait font faire peut peuvent doit doivent va vont faut oui non voilà
        merci ainsi total trois quatre cinq six sept huit neuf dix fois moitié chacun chacune puisqu
    """,
    "es": """
        el la los las un una unos unas lo al del de este esta estos estas ese esa eso esos cada todo toda todos todas
        otro otra otros otras mismo ambos más menos mucho muchos muchas algunos su sus mi mis tu nuestro yo él ella
        nosotros ellos ellas usted me te se le les nos que qué quién cuál cuáles cuánto cuánta cuántos cuántas cómo
        cuándo dónde en por para con sin sobre entre desde hasta hacia durante según después antes pero sino si porque
        como cuando mientras entonces luego pues no también ya muy bien aquí ahora solo sólo así aún es son era eran
        fue ser está están estaba hay ha han había tiene tienen tenía tener puede pueden debe deben hace hacer va sí
        total uno dos tres cuatro cinco seis siete ocho nueve diez mitad veces vez doble
    """,
    "it": """
        il lo la gli le un uno una del dello della dei degli delle al allo alla ai agli alle dal dalla dai dalle nel
        nello nella nei nelle sul sulla sui sulle di da in con su per tra fra ed ma se questo questa questi queste
        quel quello quella quelli ogni tutto tutta tutti tutte altro altra altri altre più meno molto molti alcuni suo
        sua suoi sue mio mia loro nostro io tu lui lei noi voi essi mi ti si ci vi ne che chi cui quale quali quanto
        quanta quanti quante come quando dove perché anche non poi quindi allora ancora già adesso ora prima dopo
        mentre durante senza così solo sono era erano essere ha hanno aveva avere può possono deve devono fa va sì no
        bene due tre quattro cinque sei sette otto nove dieci metà volte volta dell all nell sull
    """,
    "pt": """
        os as um uma uns umas do da dos das de no na nos nas ao aos às pelo pela pelos pelas num numa em por para com
        sem sobre entre até desde durante após depois antes ou mas se porque como quando enquanto então logo pois este
        esta estes estas esse essa isso esses essas aquele aquela isto cada todo toda todos todas outro outra outros
        outras mesmo ambos mais menos muito muitos muitas alguns seu sua seus suas meu minha nosso eu ele ela nós eles
        elas você vocês me te lhe que quem qual quais quanto quanta quantos quantas onde não também já ainda só aqui
        agora assim bem são era eram foi foram ser está estão estava há tem têm tinha ter pode podem deve devem faz
        fazer vai sim dele dela deles dois duas três quatro cinco seis sete oito nove dez metade vezes vez dobro
    """,
    "nl": """
        de het een deze dit die dat elke elk iedere ieder alle beide veel meer minder weinig enkele andere ander geen
        ik jij je hij zij ze wij we jullie hem haar hen hun ons onze mij me mijn zijn zich wie wat welke hoe hoeveel
        wanneer waar waarom van te tot in op aan bij met naar voor over onder door zonder om uit sinds per tussen
        tijdens na tegen en of maar want als dan dus omdat terwijl niet ook nog al heel zeer hier daar er nu eerst
        samen weer toen is bent was waren worden wordt werd heeft hebben had hadden kan kunnen kon moet moeten zal zou
        zullen wil gaat gaan doet geeft ja nee goed totaal keer één twee drie vier vijf zes zeven acht negen tien
        helft dubbel
    """,
}


def languages_of_words() -> dict[str, list[str]]:
    """The languages of each function word."""
    languages: dict[str, list[str]] = {}
    for language, words in FUNCTION_WORDS.items():
        for word in words.split():
            languages.setdefault(word, []).append(language)
    return languages
